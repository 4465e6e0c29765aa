"""A small use case that is served: its model trained, promoted, and asked over HTTP."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from starlette.testclient import TestClient

from ml_platform.registry import Registry
from ml_platform.serving.http import create_app
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder


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
        """A client of the running application; `changes` are settings of serving."""
        serving = ServingSettings().model_copy(update={"follow_seconds": 0.1, **changes})
        with TestClient(create_app(self.settings, serving), raise_server_exceptions=False) as it:
            yield it


def deploy(root: Path, task: str = "binary", model: str | None = None) -> Deployment:
    """Trips of 30 days, landed; nothing is trained yet."""
    chosen = settings(root)
    use_case = write_folder(root, task, model)
    lake = Lake(chosen)
    land(lake, use_case, trips(1, 30), days(1, 30))
    return Deployment(root, chosen, lake, Registry(chosen), use_case)


ROW = {"city": "Boston", "distance": 21.5, "pace__pace": 0.36}
