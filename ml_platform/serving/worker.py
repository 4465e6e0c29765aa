"""One process that answers: the service, HTTP and gRPC around it, promotions followed."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from starlette.applications import Starlette

from ml_platform.access import KeyRing
from ml_platform.errors import PlatformError
from ml_platform.features import open_online_store
from ml_platform.registry import Registry
from ml_platform.serving.admission import Admission, check_exposure
from ml_platform.serving.grpc import start_server
from ml_platform.serving.heads import timed_heads
from ml_platform.serving.http import build_app
from ml_platform.serving.live import LiveVersions
from ml_platform.serving.service import Service
from ml_platform.serving.tls import uvicorn_context
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.storage import Lake

logger = logging.getLogger(__name__)

KEYS_SECONDS = 0.5
"""How often keys are looked at: a revoked one works for as long at most."""


def create_app(
    settings: Settings | None = None, serving: ServingSettings | None = None
) -> Starlette:
    """The service of a deployment; settings are those of the environment where none are given."""
    settings, serving = settings or Settings(), serving or ServingSettings()
    lake, registry = Lake(settings), Registry(settings)
    admission = Admission(KeyRing(lake), serving)
    loaded = load_use_cases(settings.use_cases)
    store = open_online_store(settings)
    live = LiveVersions(lake, registry, loaded.use_cases.values())
    service = Service(live, store, serving)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await asyncio.to_thread(service.live.refresh)
        if admission.on:
            await asyncio.to_thread(admission.ring.refresh)
        grpc_server, app.state.grpc_port = await start_server(service, admission)
        following = asyncio.create_task(service.follow_promotions(serving.follow_seconds))
        following_keys = asyncio.create_task(_follow_keys(admission))
        try:
            yield
        finally:
            following.cancel()
            following_keys.cancel()
            await grpc_server.stop(grace=serving.body_seconds)
            service.close()
            store.close()
            lake.close()

    return build_app(service, admission, lifespan)


def serve(serving: ServingSettings) -> None:
    """Answer over HTTP until interrupted; AccessError where that would let anybody in."""
    import uvicorn

    check_exposure(serving)
    uvicorn.run(
        "ml_platform.serving.worker:create_app",
        factory=True,
        host=serving.host,
        port=serving.port,
        workers=serving.workers,
        access_log=False,
        server_header=False,
        **transport(serving),
    )


def transport(serving: ServingSettings) -> dict[str, Any]:
    """How uvicorn should take connections: its arguments."""
    return {
        "http": timed_heads(serving.head_seconds),
        "ws": "none",
        "ssl_context_factory": uvicorn_context(serving),
    }


async def _follow_keys(admission: Admission) -> None:
    while admission.on:
        await asyncio.sleep(KEYS_SECONDS)
        try:
            await asyncio.to_thread(admission.ring.refresh)
        except PlatformError as error:
            # The keys that were read last go on working until they expire.
            logger.warning("the keys cannot be read: %s", error)
