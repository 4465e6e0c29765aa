"""Spark on a real cluster, with a packed environment; executors and drivers that are killed."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pydantic import SecretStr
from spark_lake.cluster import running_cluster, until

from ml_platform.engines.spark.packing import pack_environment
from ml_platform.errors import EngineFailed
from ml_platform.registry import Registry
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.orphans import sweep_orphans
from ml_platform.training import train
from tests.kept_models import promote
from tests.sparks import data_files, forget, rows_of
from tests.trips_use_case import COMMIT, at, days, land, trips, write_folder

pytest.importorskip("pyspark", reason="pyspark is not installed: make install-spark")
pytestmark = [pytest.mark.slow, pytest.mark.spark]

# It says that it began to predict, and continues once the test lets it; in any process.
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
    return rows[["distance"]].fillna({missing})


def build():
    return make_pipeline(FunctionTransformer(prepared), LogisticRegression())
"""


@dataclass(frozen=True)
class Trips:
    root: Path
    use_case: UseCase
    lake: Lake
    registry: Registry

    @property
    def gate(self) -> Path:
        return self.root / "gate"

    def scoring(self, master: str, archive: Path | None = None) -> "subprocess.Popen[str]":
        """The command, in a process of its own."""
        conf = {
            "spark.driver.host": "127.0.0.1",
            "spark.executor.memory": "512m",
            "spark.sql.shuffle.partitions": "2",
        }
        named = {
            "ML_PLATFORM_DATA": str(self.lake.settings.data),
            "ML_PLATFORM_USE_CASES": str(self.root),
            "ML_PLATFORM_SPARK_MASTER": master,
            "ML_PLATFORM_SPARK_CONF": json.dumps(conf),
            **({"ML_PLATFORM_SPARK_ARCHIVE": str(archive)} if archive else {}),
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
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trips]:
    """Trips that one version predicts from the 20th on, and another one from the 24th on."""
    root = tmp_path_factory.mktemp("trips")
    (root / "gate").mkdir()
    settings = Settings(data=root / "data", use_cases=root)
    lake, registry = Lake(settings), Registry(settings)
    for day, missing in ((20, 3), (24, 30)):
        model = MODEL.format(gate=str(root / "gate"), missing=missing)
        use_case = write_folder(root, "binary", model)
        if day == 20:
            land(lake, use_case, trips(1, 26), days(1, 26))
        version = train(lake, registry, use_case, at(day), COMMIT, tags={}).version
        promote(lake, use_case, version, at(day))
    yield Trips(root, use_case, lake, registry)
    lake.close()


@pytest.fixture
def in_process(made: Trips) -> list[tuple[Any, ...]]:
    """The predictions in process, which are gone from the lake again."""
    score(made.lake, made.registry, made.use_case, days(20, 26), COMMIT)
    rows = rows_of(made.lake, made.use_case, "predictions")
    assert len(rows) == 7 * 40
    assert {row[-1] for row in rows} == {1, 2}
    forget(made.lake, made.use_case, "predictions")
    for file in made.gate.iterdir():
        file.unlink()
    return rows


@pytest.mark.exhaustive
def test_on_a_cluster_a_killed_executor_leaves_no_trace(
    made: Trips, in_process: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    # Packed before the models were trained, it does not hold them: workers are sent those.
    archive = tmp_path / "environment.tar.gz"
    packages = pack_environment(archive, [made.use_case])
    assert any(package.startswith("scikit-learn==") for package in packages)
    assert not any(package.startswith(("dagster==", "mlflow==")) for package in packages)
    (made.gate / "closed").touch()
    with running_cluster(tmp_path / "cluster") as cluster:
        command = made.scoring(cluster.url, archive)
        until(lambda: made.began() or command.poll() is not None, "a worker that predicts")
        assert command.poll() is None, command.communicate()
        # Python's worker is a child of the executor.
        predicting = made.began()[0]
        killed = [e for e in cluster.executors() if predicting in {c.pid for c in e.children(True)}]
        assert len(killed) == 1
        killed[0].kill()
        (made.gate / "closed").unlink()
        out, errors = command.communicate(timeout=300)
    assert command.returncode == 0, errors
    assert "280 rows in 7 of 7 partitions; 7 changed" in out
    assert rows_of(made.lake, made.use_case, "predictions") == in_process
    assert all("/spark-" in path for path in data_files(made.lake, made.use_case, "predictions"))


@pytest.mark.exhaustive
def test_after_a_killed_driver_the_command_again_finishes(
    made: Trips, in_process: list[tuple[Any, ...]]
) -> None:
    (made.gate / "closed").touch()
    command = made.scoring("local[2]")
    until(lambda: made.began() or command.poll() is not None, "a worker that predicts")
    assert command.poll() is None, command.communicate()
    for process in [*psutil.Process(command.pid).children(recursive=True), command]:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    command.communicate()
    (made.gate / "closed").unlink()
    assert rows_of(made.lake, made.use_case, "predictions") == []
    again = made.scoring("local[2]")
    _, errors = again.communicate(timeout=300)
    assert again.returncode == 0, errors
    assert rows_of(made.lake, made.use_case, "predictions") == in_process
    # What the killed one had written is swept as any killed writer's files are.
    swept = sweep_orphans(made.lake, datetime.now(UTC) + timedelta(minutes=1))
    assert not swept.foreign
    assert rows_of(made.lake, made.use_case, "predictions") == in_process


def test_a_master_that_is_none_is_named(made: Trips) -> None:
    lake = Lake(made.lake.settings.model_copy(update={"spark_master": "sparks://nowhere:7077"}))
    with pytest.raises(EngineFailed, match=r"^engine spark: [^\n]*sparks://nowhere:7077[^\n]*$"):
        score(lake, made.registry, made.use_case, days(20, 26), COMMIT, engine="spark")
    lake.close()


def test_a_server_of_spark_connect_that_is_not_there_is_named(made: Trips) -> None:
    nowhere = SecretStr("sc://127.0.0.1:9/;token=planted")
    lake = Lake(made.lake.settings.model_copy(update={"spark_remote": nowhere}))
    with pytest.raises(
        EngineFailed, match=r"^engine spark: [^\n]*127\.0\.0\.1:9: [^\n]*$"
    ) as reported:
        score(lake, made.registry, made.use_case, days(20, 26), COMMIT, engine="spark")
    assert "planted" not in str(reported.value)
    lake.close()
