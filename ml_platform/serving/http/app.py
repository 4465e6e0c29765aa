"""The HTTP application and the processes that run it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from ml_platform.errors import PlatformError
from ml_platform.registry import Registry
from ml_platform.serving.http.invocations import Invocations
from ml_platform.serving.http.problems import answer_http_exception, answer_platform_error
from ml_platform.serving.http.v2 import V2
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.service import Service
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.storage import Lake


def create_app(
    settings: Settings | None = None, serving: ServingSettings | None = None
) -> Starlette:
    """The service of a deployment; settings are those of the environment where none are given."""
    settings, serving = settings or Settings(), serving or ServingSettings()
    lake, registry = Lake(settings), Registry(settings)
    loaded = load_use_cases(settings.use_cases)
    service = Service(LiveVersions(lake, registry, loaded.use_cases.values()), serving)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.live.refresh)
        following = asyncio.create_task(service.follow_promotions(serving.follow_seconds))
        try:
            yield
        finally:
            following.cancel()
            service.close()
            lake.close()

    return Starlette(
        routes=_routes(service),
        lifespan=lifespan,
        exception_handlers={
            PlatformError: answer_platform_error,
            HTTPException: answer_http_exception,
        },
    )


def serve(serving: ServingSettings) -> None:
    """Answer over HTTP until interrupted."""
    import uvicorn

    uvicorn.run(
        "ml_platform.serving.http.app:create_app",
        factory=True,
        host=serving.host,
        port=serving.port,
        workers=serving.workers,
        access_log=False,
        server_header=False,
    )


def _routes(service: Service) -> list[Route]:
    v2, mlflow = V2(service), Invocations(service)
    named, versioned = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    return [
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
    ]
