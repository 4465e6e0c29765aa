"""One process that answers: the service, HTTP and gRPC around it, promotions followed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.applications import Starlette

from ml_platform.features import open_online_store
from ml_platform.registry import Registry
from ml_platform.serving.feedback import FeedbackInbox
from ml_platform.serving.grpc import start_server
from ml_platform.serving.http import build_app
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.records import Records
from ml_platform.serving.request_log import RequestLog
from ml_platform.serving.review import ReviewQueue
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
    store = open_online_store(settings)
    live = LiveVersions(lake, registry, loaded.use_cases.values())
    cases = list(loaded.use_cases.values())
    records = Records(
        RequestLog(settings, serving, cases),
        FeedbackInbox(settings, serving, cases),
        ReviewQueue(lake, cases),
    )
    service = Service(live, store, serving, records)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.live.refresh)
        grpc_server, app.state.grpc_port = await start_server(service)
        following = asyncio.create_task(service.follow_promotions(serving.follow_seconds))
        landing = asyncio.create_task(records.land_old())
        try:
            yield
        finally:
            following.cancel()
            landing.cancel()
            await grpc_server.stop(grace=serving.body_seconds)
            service.close()
            store.close()
            lake.close()

    app = build_app(service, lifespan)
    app.state.service = service
    return app


def serve(serving: ServingSettings) -> None:
    """Answer over HTTP until interrupted."""
    import uvicorn

    uvicorn.run(
        "ml_platform.serving.worker:create_app",
        factory=True,
        host=serving.host,
        port=serving.port,
        workers=serving.workers,
        access_log=False,
        server_header=False,
    )
