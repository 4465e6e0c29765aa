"""A small use case that is served: its model trained, promoted, and asked over HTTP."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvicorn
from starlette.testclient import TestClient

from ml_platform.features import open_online_store, publish
from ml_platform.registry import Registry
from ml_platform.serving.draining import DrainingServer
from ml_platform.serving.worker import create_app, transport
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

LOCAL = "http://localhost:8080"
"""What a client without a network calls the application."""


@dataclass(frozen=True)
class Deployment:
    """A lake with trips, and a registry."""

    root: Path
    settings: Settings
    lake: Lake
    registry: Registry
    use_case: UseCase

    def promote(self, day: int) -> int:
        """Train a version at a cutoff and let the gate decide about it."""
        case = self.use_case
        version = train(self.lake, self.registry, case, at(day), COMMIT, tags={}).version
        decide(self.lake, self.registry, case, version, COMMIT, decided_by="ada")
        return version

    @contextmanager
    def client(self, **changes: object) -> Iterator[TestClient]:
        """A client of the application, without a network; `changes` are settings of serving."""
        app = create_app(self.settings, serving_settings(**changes))
        with TestClient(app, LOCAL, raise_server_exceptions=False) as client:
            yield client

    @contextmanager
    def served(self, **changes: object) -> Iterator["Served"]:
        """The application behind real ports of this machine."""
        serving = serving_settings(**changes)
        app = create_app(self.settings, serving)
        config = uvicorn.Config(app, port=0, log_level="warning", **transport(serving))
        server = DrainingServer(config, drain_seconds=0)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not come up"
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield Served(f"127.0.0.1:{port}", f"127.0.0.1:{app.state.grpc_port}")
        finally:
            server.should_exit = True
            thread.join(30)


@dataclass(frozen=True)
class Served:
    """Addresses of a running service."""

    http: str
    grpc: str


def serving_settings(**changes: object) -> ServingSettings:
    """Free ports, and promotions followed at once."""
    quick = {"follow_seconds": 0.1, "grpc_port": 0}
    return ServingSettings().model_copy(update={**quick, **changes})


def deploy(
    root: Path, task: str = "binary", model: str | None = None, **changes: object
) -> Deployment:
    """Trips of 30 days, landed; nothing is trained yet. `changes` are settings of the platform."""
    chosen = settings(root).model_copy(update=changes)
    use_case = write_folder(root, task, model)
    lake = Lake(chosen)
    land(lake, use_case, trips(1, 30), days(1, 30))
    return Deployment(root, chosen, lake, Registry(chosen), use_case)


@contextmanager
def deployed(
    root: Path, *, task: str = "binary", declared: str = "", online: bool = False
) -> Iterator[Deployment]:
    """Trips whose version 1 serves; declared: more YAML. online: features can be looked up."""
    made = declare(deploy(root, task), declared)
    made.promote(20)
    if online:
        published(made)
    yield made
    made.lake.close()


def declare(made: Deployment, text: str) -> Deployment:
    """The deployment with more in its use case's YAML."""
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text() + text)
    return Deployment(
        made.root, made.settings, made.lake, made.registry, load_use_case(made.use_case.folder)
    )


def ruled(made: Deployment, *rules: str) -> Deployment:
    """The deployment with rules for its trips."""
    spec = made.use_case.folder / "use_case.yaml"
    columns = "delay: DOUBLE}\n"
    spec.write_text(spec.read_text().replace(columns, f"{columns}    rules: {list(rules)}\n"))
    return declare(made, "")


def published(made: Deployment) -> None:
    """The features of the last days are looked up online."""
    store = open_online_store(made.settings)
    publish(made.lake, store, made.use_case, "pace", days(28, 30))
    store.close()


def rows_of(day: int) -> list[dict[str, Any]]:
    """The trips of a day as a caller knows them."""
    landed = trips(1, 30)
    chosen = landed[landed["started_at"].dt.day == day].drop(columns="delay")
    chosen["started_at"] = chosen["started_at"].map(lambda at: at.isoformat())
    return chosen.astype(object).where(chosen.notna(), None).to_dict("records")


def records(folder: Path) -> list[dict[str, Any]]:
    """What has landed below a folder as lines of JSON."""
    lines = [line for f in sorted(folder.rglob("*.jsonl")) for line in f.read_bytes().splitlines()]
    return [msgspec.json.decode(line) for line in lines]


ROW = {"city": "Boston", "distance": 21.5, "pace__pace": 0.36}
LOGGED = "serving: {log: {}, review: {uncertain: [0.2, 0.8]}}\n"
