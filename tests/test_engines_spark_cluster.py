"""Spark on a real cluster, with a packed environment; executors and drivers that are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from ml_platform.engines.spark.packing import pack_environment
from ml_platform.registry import Registry
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.orphans import sweep_orphans
from ml_platform.training import train
from tests.kept_models import promote
from tests.spark_cluster import Cluster, running_cluster, until
from tests.sparks import data_files, forget, rows_of
from tests.trips_use_case import COMMIT, at, days, land, trips, write_folder

pytest.importorskip("pyspark", reason="pyspark is not installed: make install-spark")
pytestmark = [pytest.mark.slow, pytest.mark.spark]

# It says that it began to predict, and goes on once the test lets it; in any process.
MODEL = """\
import os
import time
from pathlib import Path

from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

GATE = Path({gate!r})


def prepared(rows):
    if (GATE / "closed").exists():
        (GATE / f"began-{{os.getpid()}}").touch()
        while (GATE / "closed").exists():
            time.sleep(0.05)
    return rows[["distance"]].fillna(30)


def build():
    return make_pipeline(FunctionTransformer(prepared), LogisticRegression())
"""


@dataclass(frozen=True)
class Trips:
    root: Path
    use_case: UseCase
    lake: Lake
    registry: Registry
    archive: Path

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    def settings(self, cluster: Cluster) -> Settings:
        conf = {
            "spark.driver.host": "127.0.0.1",
            "spark.executor.memory": "512m",
            "spark.sql.shuffle.partitions": "2",
            # A test waits for what a cluster does when an executor is gone.
            "spark.task.maxFailures": "8",
        }
        return self.lake.settings.model_copy(
            update={
                "spark_master": cluster.url,
                "spark_conf": conf,
                "spark_archive": str(self.archive),
            }
        )

    def scoring(self, cluster: Cluster) -> "subprocess.Popen[str]":
        """The command, in a process of its own."""
        settings = self.settings(cluster)
        named = {
            "ML_PLATFORM_DATA": str(settings.data),
            "ML_PLATFORM_USE_CASES": str(self.root),
            "ML_PLATFORM_SPARK_MASTER": settings.spark_master,
            "ML_PLATFORM_SPARK_CONF": json.dumps(settings.spark_conf),
            "ML_PLATFORM_SPARK_ARCHIVE": settings.spark_archive or "",
        }
        return subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", "score", "trips", "--engine", "spark",
             "--range", "2024-03-20...2024-03-26"],
            env={**os.environ, **named}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip

    def began(self) -> list[int]:
        return [int(file.name.partition("-")[2]) for file in self.gate.glob("began-*")]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trips]:
    root = tmp_path_factory.mktemp("trips")
    (root / "gate").mkdir()
    settings = Settings(data=root / "data", use_cases=root)
    lake, registry = Lake(settings), Registry(settings)
    use_case = write_folder(root, "binary", MODEL.format(gate=str(root / "gate")))
    land(lake, use_case, trips(1, 26), days(1, 26))
    version = train(lake, registry, use_case, at(20), COMMIT, tags={}).version
    promote(lake, use_case, version, at(20))
    archive = root / "environment.tar.gz"
    packages = pack_environment(archive, [use_case])
    assert any(package.startswith("scikit-learn==") for package in packages)
    assert not any(package.startswith(("dagster==", "mlflow==")) for package in packages)
    yield Trips(root, use_case, lake, registry, archive)
    lake.close()


@pytest.fixture
def in_process(made: Trips) -> list[tuple[Any, ...]]:
    """The predictions in process, which are gone from the lake again."""
    score(made.lake, made.registry, made.use_case, days(20, 26), COMMIT)
    rows = rows_of(made.lake, made.use_case, "predictions")
    assert len(rows) == 7 * 40
    forget(made.lake, made.use_case, "predictions")
    for file in made.gate.iterdir():
        file.unlink()
    return rows


def test_a_killed_executor_leaves_no_trace(
    made: Trips, cluster: Cluster, in_process: list[tuple[Any, ...]]
) -> None:
    (made.gate / "closed").touch()
    command = made.scoring(cluster)
    until(lambda: made.began() or command.poll() is not None, "a worker that predicts")
    # Python's worker is a child of the executor.
    predicting = made.began()[0]
    killed = [e for e in cluster.executors() if predicting in {c.pid for c in e.children(True)}]
    assert len(killed) == 1
    killed[0].kill()
    (made.gate / "closed").unlink()
    out, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    assert "2024-03-26" in out or "280" in out
    assert rows_of(made.lake, made.use_case, "predictions") == in_process
    assert all("/spark-" in path for path in data_files(made.lake, made.use_case, "predictions"))


def test_after_a_killed_driver_the_command_again_finishes(
    made: Trips, cluster: Cluster, in_process: list[tuple[Any, ...]]
) -> None:
    (made.gate / "closed").touch()
    command = made.scoring(cluster)
    until(lambda: made.began() or command.poll() is not None, "a worker that predicts")
    assert command.poll() is None
    # The JVM of the driver is a child of the command.
    for process in [*psutil.Process(command.pid).children(recursive=True), command]:
        os.kill(process.pid, signal.SIGKILL)
    command.communicate()
    (made.gate / "closed").unlink()
    assert rows_of(made.lake, made.use_case, "predictions") == []
    until(lambda: not cluster.executors(), "executors without a driver to end")
    again = made.scoring(cluster)
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert rows_of(made.lake, made.use_case, "predictions") == in_process
    # What the killed one had written is swept as any killed writer's files are.
    swept = sweep_orphans(made.lake, datetime.now(UTC) + timedelta(minutes=1))
    assert not swept.foreign
    assert rows_of(made.lake, made.use_case, "predictions") == in_process


def test_a_new_version_needs_no_new_archive(made: Trips, cluster: Cluster) -> None:
    newer = made.root / "newer"
    newer.mkdir()
    model = MODEL.format(gate=str(made.gate)).replace("fillna(30)", "fillna(3)")
    case = write_folder(newer, "binary", model)
    version = train(made.lake, made.registry, case, at(24), COMMIT, tags={}).version
    promote(made.lake, case, version, at(24))
    score(made.lake, made.registry, case, days(24, 26), COMMIT)
    rows = rows_of(made.lake, case, "predictions")
    forget(made.lake, case, "predictions", "window_start >= TIMESTAMP '2024-03-24'")
    command = made.scoring(cluster)
    _, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    now = rows_of(made.lake, case, "predictions")
    assert {row[-1] for row in now if row in rows} == {version}
    assert sum(row in now for row in rows) == 3 * 40
    assert version in {value for row in now for value in row}


def test_a_master_that_is_not_there_is_named(made: Trips) -> None:
    nobody = made.lake.settings.model_copy(
        update={
            "spark_master": "spark://127.0.0.1:9",
            "spark_conf": {
                "spark.driver.host": "127.0.0.1",
                "spark.deploy.appClient.maxRetries": "1",
            },
        }
    )
    lake = Lake(nobody)
    from ml_platform.errors import EngineFailed

    with pytest.raises(EngineFailed, match=r"^engine spark: [^\n]*$") as refused:
        score(lake, made.registry, made.use_case, days(20, 26), COMMIT, engine="spark")
    assert "127.0.0.1:9" in str(refused.value)
    lake.close()
