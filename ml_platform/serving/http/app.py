"""The HTTP application around the service."""

from collections.abc import Sequence

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan

from ml_platform.errors import PlatformError
from ml_platform.serving.admission import Admission
from ml_platform.serving.http.feedback import Feedback
from ml_platform.serving.http.guard import Admitting, guard
from ml_platform.serving.http.invocations import Invocations
from ml_platform.serving.http.openapi import describe
from ml_platform.serving.http.origins import refuse_forms
from ml_platform.serving.http.paths.samples import ask_for
from ml_platform.serving.http.plain import Plain
from ml_platform.serving.http.problems import (
    answer_http_exception,
    answer_platform_error,
    answer_unexpected,
)
from ml_platform.serving.http.v2 import V2
from ml_platform.serving.known_rows import KnownRows
from ml_platform.serving.service import Service


def build_app(
    service: Service,
    admission: Admission,
    lifespan: Lifespan[Starlette],
    *,
    known_rows: KnownRows,
    routes: Sequence[Route] = (),
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """All paths of a service; `lifespan` is entered before the first request is taken.

    known_rows: what openapi.json has for examples. routes: those besides predictions. middleware:
    what is around all of them, outermost first; who asks is found out inside of it, so that those
    who are turned away are seen as well.
    """
    guarded = guard([*_routes(service, admission, known_rows), *routes], lambda: service.live.names)
    app = Starlette(
        # Where nobody has to say who they are, a browser on this machine is as good as its user.
        routes=guarded if admission.on else refuse_forms(guarded),
        middleware=[*middleware, Middleware(Admitting, admission)],
        lifespan=lifespan,
        exception_handlers={
            PlatformError: answer_platform_error,
            HTTPException: answer_http_exception,
            Exception: answer_unexpected,
        },
    )
    # A redirect would lead wherever the Host header says; another path is another path.
    app.router.redirect_slashes = False
    return app


def _routes(service: Service, admission: Admission, known_rows: KnownRows) -> list[Route]:
    v2, mlflow, plain = V2(service), Invocations(service), Plain(service)

    async def openapi(request: Request) -> Response:
        # The document has an example of each use case: nobody sees those of others.
        readable = request.scope["caller"].those_where("read", service.live.names)
        document = describe(service.live, readable, authentication=admission.on)
        ask_for(document, await known_rows.of(readable))
        return Response(msgspec.json.encode(document), media_type="application/json")

    feedback = Feedback(service)
    named, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return [
        Route("/openapi.json", openapi),
        Route("/predict/{model}", plain.predict, methods=["POST"]),
        Route("/feedback/{use_case}", feedback.take, methods=["POST"]),
        Route("/review/{use_case}", feedback.waiting),
        Route("/review/{use_case}/{prediction}", feedback.answer, methods=["POST"]),
        Route("/v2", v2.server),
        Route("/v2/health/live", v2.live),
        Route("/v2/health/ready", v2.ready),
        *(
            route
            for path in (named, versioned)
            for route in (
                Route(path, v2.model),
                Route(f"{path}/ready", v2.model_ready),
                Route(f"{path}/infer", v2.infer, methods=["POST"]),
            )
        ),
        *(
            route
            for path in ("", "/mlflow/{model}")
            for route in (
                Route(f"{path}/ping", mlflow.ping),
                Route(f"{path}/version", mlflow.version),
                Route(f"{path}/invocations", mlflow.invoke, methods=["POST"]),
            )
        ),
        # As MLflow's client of deployments asks.
        Route("/endpoints/{model}/invocations", mlflow.invoke, methods=["POST"]),
    ]
