"""Who may ask a path, and who is rejected."""

from collections.abc import Callable, Mapping, Sequence

from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.access import ANY, Caller
from ml_platform.errors import RequestError
from ml_platform.serving.admission import CALLER, Admission, with_address
from ml_platform.serving.http.declared import PUBLIC_PATHS
from ml_platform.serving.http.endpoints import Endpoint, Need, endpoints_of
from ml_platform.serving.http.origins import JsonAlone
from ml_platform.serving.http.problems import answer_error


class AdmissionMiddleware:
    """Middleware that finds out who asks, before anything else of a request is looked at."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app, self._admission = app, admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC_PATHS:
            await self._app(scope, receive, send)
            return
        authorization = api_key = None
        for name, value in scope["headers"]:
            if name == b"authorization":
                authorization = value.decode("latin-1")
            elif name == b"x-api-key":
                api_key = value.decode("latin-1")
        address = (scope.get("client") or (None,))[0]
        try:
            caller = with_address(await self._admission.admit(authorization, api_key), address)
        except RequestError as failure:
            error = self._admission.refused(failure, address)
            scope.setdefault("state", {})["error_kind"] = type(error).__name__
            await answer_error(error, scope)(scope, receive, send)
            return
        scope["caller"] = caller
        CALLER.set(caller)
        await self._app(scope, receive, send)


class Guard:
    """One route, for those alone who are permitted to."""

    def __init__(
        self, app: ASGIApp, endpoint: Endpoint, use_cases: Callable[[], tuple[str, ...]]
    ) -> None:
        self._app, self._use_cases = app, use_cases
        self._path, self._need = endpoint.path, endpoint.needs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["route"] = self._path
        if self._need is not None:
            self._check(scope["caller"], self._need, scope["path_params"])
        await self._app(scope, receive, send)

    def _check(self, caller: Caller, need: Need, parameters: Mapping[str, str]) -> None:
        if need.of == "all":
            caller.require(need.permission, ANY)
        elif need.of == "one":
            name = self._named(parameters)
            if need.instead is None or not caller.may(need.instead, name):
                caller.require(need.permission, name)
        elif not caller.those_where(need.permission, (ANY, *self._use_cases())):
            caller.require(need.permission, ANY)

    def _named(self, parameters: Mapping[str, str]) -> str:
        for name in ("model", "use_case"):
            if name in parameters:
                return parameters[name]
        names = self._use_cases()
        return names[0] if len(names) == 1 else ANY


def routes_of(
    handlers: Sequence[object], use_cases: Callable[[], tuple[str, ...]], *, json_alone: bool
) -> list[Route]:
    """A route for each path that the classes of handlers declare, each behind what it needs.

    json_alone: whether paths that change something take JSON alone, which no form of a page sends.
    """
    by_kind = {type(each): each for each in handlers}
    routes = []
    for kind, handler in by_kind.items():
        for endpoint in endpoints_of([kind]):
            method = getattr(handler, endpoint.handler)
            route = Route(endpoint.path, method, methods=[endpoint.method])
            app = JsonAlone(route.app) if json_alone and endpoint.changes else route.app
            route.app = Guard(app, endpoint, use_cases)
            routes.append(route)
    return routes
