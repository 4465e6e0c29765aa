"""The HTTP application around the service."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import Lifespan

from ml_platform.errors import PlatformError
from ml_platform.serving.admission import Admission
from ml_platform.serving.http.declared import ENDPOINTS
from ml_platform.serving.http.documents import Documents
from ml_platform.serving.http.feedback import FeedbackPaths
from ml_platform.serving.http.guard import AdmissionMiddleware, routes_of
from ml_platform.serving.http.invocations import Invocations
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
    handlers: Sequence[object] = (),
    middleware: Sequence[Middleware] = (),
) -> Starlette:
    """All paths of a service; `lifespan` is entered before the first request is taken.

    known_rows: what openapi.json has for examples. handlers: of paths besides predictions.
    middleware: what is around all of them, outermost first; who asks is found out inside of it, so
    that those who are rejected are seen as well.
    """
    documents = Documents(service.live, ENDPOINTS, admission.on, known_rows)
    everything = [
        documents, Plain(service), FeedbackPaths(service), V2(service), Invocations(service),
        *handlers,
    ]  # fmt: skip
    app = Starlette(
        # Where nobody has to say who they are, a browser on this machine is as good as its user.
        routes=routes_of(everything, lambda: service.live.names, json_alone=not admission.on),
        middleware=[*middleware, Middleware(AdmissionMiddleware, admission)],
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
