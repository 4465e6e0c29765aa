"""What each path needs, and who is turned away for lack of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ml_platform.access import ANY, Caller, Permission
from ml_platform.errors import AccessError, RequestError
from ml_platform.serving.admission import CALLER, Admission, told_by
from ml_platform.serving.http.problems import answer_error


@dataclass(frozen=True)
class Need:
    """What a caller has to be permitted to."""

    permission: Permission
    of: Literal["one", "some", "all"] = "one"
    """The use case that the path names, or the only one there is; any; every one."""
    instead: Permission | None = None
    """Permission that opens the path as well; what it is enough for is looked at behind it."""


PUBLIC = None
"""For load balancers, which have no key: whether the process can be asked, and nothing else."""

NEEDS: Mapping[str, Need | None] = {
    "GET /v2/health/live": PUBLIC,
    "GET /v2/health/ready": PUBLIC,
    "GET /health/live": PUBLIC,
    "GET /health/ready": PUBLIC,
    "GET /metrics": Need("read", "all"),
    "GET /status": Need("read", "some"),
    "GET /status/{model}": Need("read"),
    "GET /v2": Need("read", "some"),
    "GET /openapi.json": Need("read", "some"),
    "POST /predict/{model}": Need("predict"),
    # Who may only predict speaks of what was answered to them, which their ids say.
    "POST /feedback/{use_case}": Need("label", instead="predict"),
    # What waits for an answer shows what others asked: only for those who give answers.
    "GET /review/{use_case}": Need("label"),
    "POST /review/{use_case}/{prediction}": Need("label"),
    "GET /v2/models/{model}": Need("read"),
    "GET /v2/models/{model}/ready": Need("read"),
    "POST /v2/models/{model}/infer": Need("predict"),
    "GET /v2/models/{model}/versions/{version}": Need("read"),
    "GET /v2/models/{model}/versions/{version}/ready": Need("read"),
    "POST /v2/models/{model}/versions/{version}/infer": Need("predict"),
    "GET /ping": Need("read"),
    "GET /version": Need("read", "some"),
    "POST /invocations": Need("predict"),
    "GET /mlflow/{model}/ping": Need("read"),
    "GET /mlflow/{model}/version": Need("read"),
    "POST /mlflow/{model}/invocations": Need("predict"),
    "POST /endpoints/{model}/invocations": Need("predict"),
    "POST /control/{use_case}/train": Need("launch"),
    "POST /control/{use_case}/score": Need("launch"),
    "POST /control/{use_case}/backfill": Need("launch"),
    "POST /control/{use_case}/approve": Need("approve"),
    "POST /control/{use_case}/reject": Need("approve"),
    "POST /control/{use_case}/rollback": Need("rollback"),
    "GET /control/{use_case}/pipelines": Need("read"),
    "POST /control/{use_case}/pipelines/{pipeline}/runs": Need("launch"),
    "POST /control/{use_case}/pipelines/{pipeline}/versions/{version}/runs": Need("launch"),
    # Of which use case a run is turns out when it is looked at: only then all is asked for.
    "GET /control/runs/{run}": Need("read", "some"),
    "DELETE /control/runs/{run}": Need("launch", "some"),
}
"""By method and path. A path that is not listed cannot be served."""

PUBLIC_PATHS = frozenset(each.partition(" ")[2] for each, need in NEEDS.items() if need is PUBLIC)


class Admitting:
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
            caller = told_by(await self._admission.admit(authorization, api_key), address)
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
        self,
        app: ASGIApp,
        needs: Mapping[str, Need | None],
        use_cases: Callable[[], tuple[str, ...]],
        path: str,
    ) -> None:
        self._app, self._needs, self._use_cases = app, needs, use_cases
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        need = self._needs[method]
        scope.setdefault("state", {})["route"] = self._path
        if need is not None:
            self._check(scope["caller"], need, scope["path_params"])
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


def guard(
    routes: Iterable[BaseRoute],
    use_cases: Callable[[], tuple[str, ...]],
    needs: Mapping[str, Need | None] = NEEDS,
) -> list[BaseRoute]:
    """The routes, each behind what it needs; AccessError where that is not said of one."""
    guarded: list[BaseRoute] = []
    for route in routes:
        if not isinstance(route, Route) or route.methods is None:
            raise AccessError(f"{route}: only routes with methods can be guarded")
        declared = {}
        for method in route.methods - {"HEAD"}:
            name = f"{method} {route.path}"
            if name not in needs:
                raise AccessError(f"nobody said who may {name}; list it in NEEDS")
            declared[method] = needs[name]
        route.app = Guard(route.app, declared, use_cases, route.path)
        guarded.append(route)
    return guarded
