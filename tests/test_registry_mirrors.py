"""What mirrors the lake elsewhere is found out of step, reported, and repaired."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from mlflow import MlflowClient

from ml_platform.errors import RegistryUnavailable
from ml_platform.features import open_online_store, publish
from ml_platform.registry import Promotion, Registry, differences, history, point_alias, record
from ml_platform.registry.aliases import read_alias
from ml_platform.registry.mirrors import repair
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import train
from tests.dagster_servers import free_port, start, stop
from tests.kept_models import KeptModels
from tests.served import Deployment, declare, deploy
from tests.trips_use_case import COMMIT, at, days, land, trips, write_folder

CLI = [sys.executable, "-m", "ml_platform.cli"]
KILLED = """
import os, signal
from ml_platform.registry import Registry

Registry.set_alias = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
from ml_platform.cli import main
main()
"""
"""The command line, which is killed between the history's row and MLflow's alias."""


def decided(lake: Lake, use_case: UseCase, version: int, day: int, decision: str) -> None:
    figures = {} if decision == "promoted" else {"champion_version": 2.0}
    hours = len(history(lake, use_case))
    row = Promotion(
        version, at(day), at(1) + timedelta(hours=hours), "gate", decision, "why", figures
    )
    assert record(lake, use_case, row, COMMIT)


@dataclass(frozen=True)
class Place:
    """A copy of a deployment whose version 2 serves, 3 waits, and 4 was not decided about."""

    settings: Settings
    use_case: UseCase

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "ML_PLATFORM_DATA": str(self.settings.data),
            "ML_PLATFORM_USE_CASES": str(self.settings.use_cases),
            "ML_PLATFORM_DAGSTER_URL": "http://127.0.0.1:9",
            "USER": "ada",
        }

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*CLI, *command], env=self.environment, capture_output=True, text=True, check=False
        )

    def killed(self, *command: str) -> None:
        dead = subprocess.run(
            [sys.executable, "-c", KILLED, *command], env=self.environment, check=False
        )
        assert dead.returncode == -signal.SIGKILL

    @property
    def alias(self) -> int:
        client = MlflowClient(self.settings.tracking_uri, self.settings.tracking_uri)
        return int(client.get_model_version_by_alias("trips", "champion").version)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    made = declare(
        deploy(tmp_path_factory.mktemp("mirrors")),
        "gate: {min_improvement: -1, confidence: 0.5}\n",
    )
    for day in (20, 21, 22, 23):
        train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={})
    for version, day, decision in ((1, 20, "promoted"), (2, 21, "promoted"), (3, 22, "waiting")):
        decided(made.lake, made.use_case, version, day, decision)
    point_alias(made.lake, made.registry, made.use_case)
    made.lake.close()
    return made


@pytest.fixture
def place(deployment: Deployment, tmp_path: Path) -> Place:
    shutil.copytree(deployment.settings.data, tmp_path / "data")
    changed = deployment.settings.model_copy(update={"data": tmp_path / "data"})
    return Place(Settings(**changed.model_dump(include={"data", "use_cases"})), deployment.use_case)


ROLLBACK = ("rollback", "trips", "--reason", "worse", "--yes", "--here")
DECISIONS = {
    "approve": (("approve", "trips", "3", "--reason", "fine"), 3),
    "rollback": (ROLLBACK, 1),
    "rollback to": ((*ROLLBACK, "--to", "1", "--from", "2024-03-21"), 1),
    "promote": (("promote", "trips", "4"), 4),
}


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("decision", DECISIONS)
def test_a_command_killed_before_the_alias_is_set(place: Place, decision: str) -> None:
    command, champion = DECISIONS[decision]
    place.killed(*command)
    assert place.alias == 2
    said = json.loads(place.run("status", "trips", "--json").stdout)
    assert said["use_cases"]["trips"]["mirrors"] == [
        {
            "mirror": "MLflow's alias 'champion'",
            "shows": "version 2",
            "should": f"version {champion}",
            "problem": None,
        }
    ]
    assert place.alias == 2
    # The same command again, which is refused or finds everything decided.
    again = place.run(*command)
    assert place.alias == champion
    assert f"the lake says version {champion}: repaired" in again.stderr
    assert "Traceback" not in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", [("history", "trips"), ("approvals",)])
def test_any_next_command_repairs_the_alias_and_status_says_it_differs(
    place: Place, command: tuple[str, ...]
) -> None:
    place.killed("approve", "trips", "3", "--reason", "fine")
    shown = " ".join(place.run("status", "trips").stdout.split())
    assert "MLflow's alias 'champion' shows version 2, the lake says version 3" in shown
    assert place.run(*command).returncode == 0
    assert place.alias == 3
    assert "MLflow's alias" not in place.run("status", "trips").stdout


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_service_repairs_the_alias_as_it_starts(place: Place, tmp_path: Path) -> None:
    place.killed("approve", "trips", "3", "--reason", "fine")
    log = tmp_path / "serve.log"
    command = [*CLI, "serve", "--workers", "1", "--port", str(free_port()), "--grpc-port", "0"]
    service = start(command, place.environment, log)
    try:
        while place.alias != 3:
            assert service.poll() is None, log.read_text()
    finally:
        stop(service)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_an_alias_is_read_from_a_server_too(place: Place, tmp_path: Path) -> None:
    port = free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1", "--backend-store-uri", place.settings.tracking_uri,
    ]  # fmt: skip
    settings = Settings(data=tmp_path, mlflow_tracking_uri=f"http://127.0.0.1:{port}")
    server = start(command, dict(os.environ), tmp_path / "mlflow.log")
    try:
        while True:
            assert server.poll() is None, (tmp_path / "mlflow.log").read_text()
            try:
                assert read_alias(settings, "trips", "champion") == 2
            except RegistryUnavailable:
                continue
            break
        assert read_alias(settings, "trips", "other") is None
        assert read_alias(settings, "other", "champion") is None
    finally:
        stop(server)
    with pytest.raises(RegistryUnavailable, match="MLflow does not answer at"):
        read_alias(settings, "trips", "champion")


@pytest.mark.slow
def test_an_alias_is_read_as_mlflow_reads_it(deployment: Deployment, tmp_path: Path) -> None:
    # It is read from MLflow's own table, which fails here where that table moves.
    registry, case = deployment.registry, deployment.use_case
    assert registry.alias(case, "champion") == 2
    registry.set_alias(case, "other", 1)
    assert registry.alias(case, "other") == 1
    assert registry.alias(case, "none") is None
    assert Registry(Settings(data=tmp_path)).alias(case, "champion") is None


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return write_folder(tmp_path, "binary")


def test_the_alias_follows_a_decision_made_while_it_is_set(lake: Lake, use_case: UseCase) -> None:
    class Interrupted(KeptModels):
        def set_alias(self, use_case: UseCase, alias: str, version: int) -> None:
            if not self.aliases:
                decided(lake, use_case, 2, 5, "promoted")
            super().set_alias(use_case, alias, version)

    decided(lake, use_case, 1, 3, "promoted")
    registry = Interrupted()
    point_alias(lake, registry, use_case)
    assert registry.aliases == {"champion": 2}


def test_a_registry_that_is_unavailable_is_reported_and_stops_nobody(
    lake: Lake, use_case: UseCase
) -> None:
    class Unavailable(KeptModels):
        def alias(self, use_case: UseCase, alias: str) -> int | None:
            raise RegistryUnavailable("MLflow does not answer")

    decided(lake, use_case, 1, 3, "promoted")
    (difference,) = repair(lake, Unavailable(), use_case)
    assert difference.problem == "MLflow does not answer"
    assert str(difference).startswith("MLflow's alias 'champion' cannot be compared with the lake")


def test_nothing_is_written_where_nothing_differs(lake: Lake, use_case: UseCase) -> None:
    class Once(KeptModels):
        def set_alias(self, use_case: UseCase, alias: str, version: int) -> None:
            assert not self.aliases
            super().set_alias(use_case, alias, version)

    registry = Once()
    assert repair(lake, registry, use_case) == []
    decided(lake, use_case, 1, 3, "promoted")
    assert [str(d) for d in repair(lake, registry, use_case)] == [
        "MLflow's alias 'champion' shows no version, the lake says version 1"
    ]
    assert repair(lake, registry, use_case) == []


def test_an_online_store_behind_the_lake_is_brought_up_to_it(lake: Lake, use_case: UseCase) -> None:
    registry = KeptModels()
    land(lake, use_case, trips(1, 3), days(1, 3))
    # Never asked for: nothing differs.
    assert repair(lake, registry, use_case) == []
    store = open_online_store(lake.settings)
    publish(lake, store, use_case, "pace", days(2, 2))
    assert [d.mirror for d in differences(lake, registry, use_case)] == ["the online store of pace"]
    assert len(repair(lake, registry, use_case)) == 1
    with lake.cursor() as cursor:
        (newest,) = cursor.execute(
            "SELECT max(epoch_us(event_time)) FROM lake.trips.pace_features"
        ).fetchone()
    assert store.newest("trips", "pace") == newest
    assert repair(lake, registry, use_case) == []
    store.close()
