"""One process that answers: the service, HTTP and gRPC around it, promotions followed."""

import asyncio
import contextlib
import functools
import gc
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from structlog.typing import FilteringBoundLogger

from ml_platform.access import KeyRing, Ownership
from ml_platform.errors import PlatformError, ServingMisconfigured
from ml_platform.features import open_online_store
from ml_platform.registry import Registry
from ml_platform.serving.admission import Admission, check_exposure
from ml_platform.serving.callbacks import Callbacks
from ml_platform.serving.calls import PredictionIds
from ml_platform.serving.connection_limits import LimitedConnection
from ml_platform.serving.control import open_control
from ml_platform.serving.draining import DrainingServer
from ml_platform.serving.facts import FactReader
from ml_platform.serving.grpc import start_server
from ml_platform.serving.grpc.observed import ObservabilityInterceptor
from ml_platform.serving.handshakes import SafeHeads
from ml_platform.serving.http import build_app
from ml_platform.serving.http.control import ControlPaths
from ml_platform.serving.http.declared import HEALTH_PATHS
from ml_platform.serving.http.monitoring import MonitoringPaths
from ml_platform.serving.http.observed import ObservabilityMiddleware
from ml_platform.serving.http.origins import SameOrigin
from ml_platform.serving.http.pipelines import PipelinePaths
from ml_platform.serving.http.shedding import LoadShedding
from ml_platform.serving.known_rows import KnownRows
from ml_platform.serving.log import open_log
from ml_platform.serving.metrics import FOLDER as METRICS_FOLDER
from ml_platform.serving.metrics import Metrics, forget_dead_workers
from ml_platform.serving.parse_queue import ParseQueue
from ml_platform.serving.processes import Processes
from ml_platform.serving.records.answers import ReviewAnswers
from ml_platform.serving.records.audit_notes import AuditNotes
from ml_platform.serving.records.feedback import FeedbackInbox
from ml_platform.serving.records.outbox import Outbox
from ml_platform.serving.records.records import Records
from ml_platform.serving.records.request_log import RequestLog
from ml_platform.serving.records.review import ReviewQueue
from ml_platform.serving.service import Service
from ml_platform.serving.tls import uvicorn_context
from ml_platform.serving.tracing import Tracing, open_tracing
from ml_platform.serving.versions.following import Following
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.environments import environment_of, runs_here
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

COMPARED_SECONDS = 15.0
"""How often what was seen of a version that is tried is brought to the lake."""
KEYS_SECONDS = 0.5
"""How often keys are looked at: a revoked one works for as long at most."""
CALLBACK_SECONDS, LONGEST_CALLBACK_SECONDS = 1.0, 30.0
"""How often it is looked whether somebody is to be notified that a run has ended; less often while
that fails."""
THREADS = 32
"""Of everything that waits for a disk or the lake, besides predictions and control."""
GRPC_PORT = "ML_PLATFORM_SERVING_GRPC_PORT"


def create_worker() -> Starlette:
    """The application of a process of its own; settings are those of the environment."""
    return create_app(Settings(), ServingSettings(), owns_process=True)


def create_app(
    settings: Settings, serving: ServingSettings, *, owns_process: bool = False
) -> Starlette:
    """The service of a deployment.

    owns_process: whether what is there when it has started may stay to the end of the process.
    """
    # Whoever asks gets an answer at once, and asks again; the versions that serve continue serving.
    settings = settings.model_copy(update={"server_wait_seconds": 0})
    lake, registry = Lake(settings), Registry(settings)
    admission = Admission(KeyRing(lake), serving)
    use_cases, elsewhere = _use_cases(settings)
    store = open_online_store(settings)
    cases = list(use_cases.values())
    live = LiveVersions(lake, registry, cases, serving.retry_seconds, elsewhere=elsewhere)
    metrics, log, tracing = Metrics(), open_log(), open_tracing(serving)
    notes = AuditNotes(settings, lake)
    ownership = Ownership(lake)
    ids = PredictionIds(ownership)
    inbox = FeedbackInbox(
        settings, serving, cases, notes, lambda name: live.of(name).classes, ids.is_of
    )
    queue = ReviewQueue(lake, cases)
    records = Records(
        RequestLog(settings, serving, cases, metrics),
        inbox,
        queue,
        ReviewAnswers(lake, queue, inbox),
        Outbox(lake, cases),
        notes,
    )
    service = Service(live, store, serving, records, ids, metrics, log)
    following = Following(live, lake, registry, metrics, log)
    monitoring = MonitoringPaths(service, metrics, FactReader(lake, store, live, log))
    opened = open_control(lake, registry, settings, use_cases, serving)
    control = ControlPaths(opened, live, serving)
    worker = f"{socket.gethostname()}:{os.getpid()}"

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        _begin()
        await asyncio.to_thread(following.look)
        if admission.on:
            await asyncio.to_thread(_refresh_keys, admission, log)
            await asyncio.to_thread(_refresh_ownership, ownership, log)
        if owns_process:
            # Half a million objects of the libraries: a collection that looks through all of them
            # holds every request up for a fifth of a second.
            gc.collect()
            gc.freeze()
        grpc_server, app.state.grpc_port = await start_server(
            service, admission, ObservabilityInterceptor(live, metrics, tracing)
        )
        tasks = [
            asyncio.create_task(following.follow(serving.follow_seconds)),
            asyncio.create_task(service.trials.keep(lake, live, worker, COMPARED_SECONDS)),
            asyncio.create_task(records.land_old(log)),
            asyncio.create_task(_follow_keys(admission, ownership, log)),
            asyncio.create_task(_call_back(opened.pipelines.callbacks, log)),
        ]
        try:
            # What the protocols of connections find in the application's state.
            yield {"metrics": metrics}
        finally:
            for task in tasks:
                task.cancel()
            await grpc_server.stop()
            await service.trials.write(lake, live, worker)
            service.close()
            await asyncio.to_thread(notes.try_to_deliver, log)
            if tracing:
                await asyncio.to_thread(tracing.close)
            control.close()
            store.close()
            lake.close()

    around = _around(service.parse_queue, live, metrics, log, serving, tracing)
    app = build_app(
        service, admission, lifespan,
        known_rows=KnownRows(lake, service, log),
        handlers=[monitoring, control, PipelinePaths(control)],
        middleware=around,
    )  # fmt: skip
    app.state.service = service
    return app


def _begin() -> None:
    forget_dead_workers()
    # Each of what follows the lake may hold a thread for as long as it takes to notice that the
    # network is cut; feedback and metrics continue meanwhile.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, "aside"))


def _around(
    queue: ParseQueue,
    live: LiveVersions,
    metrics: Metrics,
    log: FilteringBoundLogger,
    serving: ServingSettings,
    tracing: Tracing | None,
) -> list[Middleware]:
    """What is around all paths, outermost first."""
    found = [
        Middleware(
            LoadShedding,
            queue=queue,
            metrics=metrics,
            use_cases=live.names,
            most_bytes=serving.most_bytes,
        ),
        Middleware(
            ObservabilityMiddleware,
            live=live,
            metrics=metrics,
            log=log,
            tracing=tracing,
            settings=serving,
        ),
    ]
    if not serving.authentication:
        hosts, origins = serving.allowed_hosts, serving.allowed_origins
        found.append(Middleware(SameOrigin, hosts=hosts, origins=origins))
    return found


def _use_cases(settings: Settings) -> tuple[dict[str, UseCase], dict[str, str]]:
    """Use cases whose models can be loaded in this environment; of the others what serves them."""
    loaded = load_use_cases(settings.use_cases)
    here, others = dict[str, UseCase](), dict[str, str]()
    for name, case in loaded.use_cases.items():
        if runs_here(name, case.folder):
            here[name] = case
        else:
            has_own = environment_of(settings, name, case.folder)
            others[name] = f"ml-platform serve {name}" if has_own else "ml-platform serve"
    return here, others


def serve(serving: ServingSettings) -> None:
    """Answer over HTTP until SIGTERM, or SIGINT, which raises KeyboardInterrupt.

    Raises AccessError where that would let anybody in.
    """
    check_exposure(serving)
    _check_grpc_port(serving)
    # Workers read their settings from the environment, and are given the HTTP port alone.
    os.environ[GRPC_PORT] = str(serving.grpc_port)
    config: dict[str, Any] = {
        "app": "ml_platform.serving.worker:create_worker",
        "factory": True,
        "host": serving.host,
        "port": serving.port,
        "access_log": False,
        "server_header": False,
        **transport(serving),
    }
    if serving.workers == 1:
        _serve_here(config, serving)
        return
    with tempfile.TemporaryDirectory(prefix="ml-platform-metrics-") as folder:
        # Workers inherit it; a folder that the deployment names stays as it is. This process
        # counts nothing: the client library looked at the variable when it was imported.
        os.environ.setdefault(METRICS_FOLDER, folder)
        parent = Processes(config, serving.workers, serving.drain_seconds, serving.silent_seconds)
        status = parent.run()
    if status:
        sys.exit(status)


def _serve_here(config: dict[str, Any], serving: ServingSettings) -> None:
    """Answer in this process."""
    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    server = DrainingServer(uvicorn.Config(**config), serving.drain_seconds)
    server.run()
    if not server.started:
        sys.exit(STARTUP_FAILURE)


def _check_grpc_port(serving: ServingSettings) -> None:
    """Raise ServingMisconfigured where somebody else listens: workers would share the port."""
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    try:
        socket.create_server((serving.host, serving.grpc_port), family=family).close()
    except OSError as error:
        raise ServingMisconfigured(
            f"gRPC cannot listen on {serving.host}:{serving.grpc_port}: {error.strerror}; choose "
            f"another port with --grpc-port or {GRPC_PORT}"
        ) from None


def transport(serving: ServingSettings) -> dict[str, Any]:
    """How uvicorn should take connections: its arguments."""
    context = uvicorn_context(serving)
    protocol = functools.partial(
        LimitedConnection if context is None else SafeHeads,
        head_seconds=serving.head_seconds,
        most_connections=serving.most_connections,
        health_paths=HEALTH_PATHS,
    )
    # Other processes import what they are handed: it stands in modules that import little.
    loop = {} if context is None else {"loop": "ml_platform.serving.handshakes:HandshakesLoop"}
    return {"http": protocol, "ws": "none", "ssl_context_factory": context, **loop}


async def _follow_keys(
    admission: Admission, ownership: Ownership, log: FilteringBoundLogger
) -> None:
    unread: str | None = None
    while admission.on:
        await asyncio.sleep(KEYS_SECONDS)
        await asyncio.to_thread(_refresh_keys, admission, log)
        unread = await asyncio.to_thread(_refresh_ownership, ownership, log, unread)


def _refresh_keys(admission: Admission, log: FilteringBoundLogger) -> None:
    try:
        admission.ring.refresh()
    except PlatformError as error:
        # The keys that were read last continue working until they expire.
        log.warning("keys_not_read", problem=str(error))


def _refresh_ownership(
    ownership: Ownership, log: FilteringBoundLogger, known: str | None = None
) -> str | None:
    """What keeps the secret from being read or made, if anything; logged where it is not known."""
    try:
        ownership.refresh()
    except Exception as error:
        # The lake may allow reading and refuse to be written to, in as many ways as there are
        # stores. What is answered meanwhile has no mark, or that of the secret read last.
        problem = f"{type(error).__name__}: {error}"
        if problem != known:
            log.warning("ownership_secret_not_read", problem=problem)
        return problem
    return None


async def _call_back(callbacks: Callbacks, log: FilteringBoundLogger) -> None:
    wait = CALLBACK_SECONDS
    while True:
        await asyncio.sleep(wait)
        try:
            await asyncio.to_thread(callbacks.turn)
            wait = CALLBACK_SECONDS
        except Exception as error:
            # Those that are due stay due, whatever it is.
            log.warning("callbacks_not_made", problem=f"{type(error).__name__}: {error}")
            wait = min(2 * wait, LONGEST_CALLBACK_SECONDS)
