"""The example as one command: a lake in, Spark on a cluster, Dagster above it, a lake out."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
from spark_lake.cluster import running_cluster

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
ZONE = ZoneInfo("Europe/Berlin")
CITIES = ("Bremen", "Dresden", "Kassel")
A_DAY = 200
MADE = "trips/trips,trips/city_features,trips/labels"
PREDICTED = "trips/predictions,trips/published_late_trips"
ROADWORKS = date(2024, 3, 22)
"""From then on trips take longer at other hours, which the first version has not seen."""
RUSH, NIGHT = (6, 7, 8, 15, 16, 17, 18), (0, 1, 2, 3, 4, 21, 22, 23)
FIRST, LAST = date(2024, 3, 1), date(2024, 3, 30)


def main() -> None:
    """Run everything from the owner's first partition to the reader of the predictions."""
    with tempfile.TemporaryDirectory(prefix="spark-lake-") as folder:
        root = Path(folder)
        with running_cluster(root / "cluster") as cluster:
            print(f"A master and two workers of Spark at {cluster.url}")
            show(root, cluster.url)


def show(root: Path, master: str) -> None:
    """Everything but the cluster; root: an empty folder that all machines share."""
    environment = settings(root, master)
    with spark(master) as session:
        write_trips(session, root / "landing" / "trips" / "trips", FIRST, LAST)
    command(environment, "pack", str(root / "environment.tar.gz"))
    materialize(environment, MADE, f"{FIRST}...{LAST}")
    command(environment, "train", "trips", "--cutoff", "2024-03-22")
    command(environment, "promote", "trips")
    materialize(environment, PREDICTED, "2024-03-22...2024-03-27")
    print("A new version: nothing is packed or deployed again")
    command(environment, "train", "trips", "--cutoff", "2024-03-28")
    command(environment, "promote", "trips")
    materialize(environment, PREDICTED, f"2024-03-28...{LAST}")
    print("Spark reads what was published, without DuckDB")
    with spark(master) as session:
        published = session.read.parquet(str(root / "shared" / "late_trips"))
        published.groupBy("event_date", "model_version").count().orderBy("event_date").show()


def settings(root: Path, master: str) -> dict[str, str]:
    """The platform's settings: where things live, and where Spark is."""
    (root / "dagster").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", root / "dagster")
    conf = {"spark.driver.host": "127.0.0.1", "spark.executor.memory": "512m"}
    return {
        **os.environ,
        "ML_PLATFORM_DATA": str(root),
        "ML_PLATFORM_USE_CASES": str(HERE / "use_cases"),
        "ML_PLATFORM_DATABASES": json.dumps({"shared": f"parquet:{root / 'shared'}"}),
        "ML_PLATFORM_SPARK_MASTER": master,
        "ML_PLATFORM_SPARK_CONF": json.dumps({**conf, "spark.sql.shuffle.partitions": "4"}),
        "ML_PLATFORM_SPARK_ARCHIVE": str(root / "environment.tar.gz"),
        "DAGSTER_HOME": str(root / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def command(environment: Mapping[str, str], *arguments: str) -> None:
    """Run a command of the platform, and show what it says."""
    print(f"$ ml-platform {' '.join(arguments)}", flush=True)
    program = [sys.executable, "-m", "ml_platform.cli", *arguments]
    subprocess.run(program, check=True, cwd=ROOT, env=dict(environment))


def materialize(environment: Mapping[str, str], assets: str, partitions: str) -> None:
    """Let Dagster compute partitions of assets, as its schedules and its UI do."""
    print(f"Dagster materialises {assets} of {partitions}", flush=True)
    program = [
        sys.executable, "-m", "dagster", "asset", "materialize", "-f", "definitions.py",
        "--select", assets, "--partition-range", partitions,
    ]  # fmt: skip
    done = subprocess.run(
        program, check=False, cwd=ROOT, env=dict(environment), capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stdout[-3000:] + done.stderr[-3000:])


@contextmanager
def spark(master: str) -> Iterator["SparkSession"]:
    """A session of somebody who knows nothing of the platform."""
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.master(master).config("spark.driver.host", "127.0.0.1")
    session = builder.config("spark.log.level", "OFF").getOrCreate()
    try:
        yield session
    finally:
        session.stop()


def write_trips(session: "SparkSession", folder: Path, first: date, last: date) -> None:
    """What the owner of the lake does each day: partitions of Parquet in Hive's layout."""
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    trips = pd.concat([trips_of(day) for day in days])
    rows = session.createDataFrame(trips)
    rows.repartition("day").write.mode("append").partitionBy("day").parquet(str(folder))


def trips_of(day: date) -> pd.DataFrame:
    """Invented trips of a day: they take longer than planned at rush hour, and in one city."""
    rng = np.random.default_rng(day.toordinal())
    midnight = datetime(day.year, day.month, day.day, tzinfo=ZONE)
    minute = np.sort(rng.choice(24 * 60, A_DAY, replace=False))
    city, km = rng.integers(len(CITIES), size=A_DAY), rng.uniform(1, 30, A_DAY).round(1)
    planned = (5 + 2 * km).round()
    slow = np.isin(minute // 60, RUSH if day < ROADWORKS else NIGHT)
    minutes = planned * (0.8 + 0.1 * (city == 1) + 0.4 * slow) + rng.normal(0, 3, A_DAY)
    return pd.DataFrame(
        {
            "trip": day.toordinal() * 1000 + np.arange(A_DAY),
            "started_at": [midnight + timedelta(minutes=int(m)) for m in minute],
            "city": np.array(CITIES)[city],
            "km": km,
            "planned": planned,
            "minutes": minutes.clip(1).round(1),
            "day": day.isoformat(),
        }
    )


if __name__ == "__main__":
    main()
