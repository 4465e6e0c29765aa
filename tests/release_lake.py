"""Make a small lake as a release writes it, by its own commands: the fixture of that release.

    git worktree add /tmp/release v0.2.0
    PYTHONPATH=/tmp/release python tests/release_lake.py tests/fixtures/lakes/0.2.0/trips.tar.xz

`ml_platform` is that of PYTHONPATH, and nothing else of the checkout is used. What it makes: trips
of 24 days with a correction, a version trained and promoted, ten days of predictions, drift and
performance reports, features online, a key, and a callback.
"""

import os
import random
import subprocess
import sys
import tarfile
import tempfile
from datetime import date, datetime, timedelta
from pathlib import Path

SPEC = """\
description: Trips
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  trips:
    files: "*.csv"
    event_time: started_at
    key: [trip]
    columns:
      {trip: BIGINT, started_at: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE, delay: DOUBLE}
features:
  pace: {entity: [city], lookback: 2d, ttl: 2d}
examples: {source: trips, entity: [trip], columns: [city, distance]}
label: {task: binary, horizon: 1d}
model: {build: "model:build", window: 10d, holdout: 3d, metric: roc_auc}
monitoring: {window: 3d, reference_rows: 100}
"""
PACE = """\
SELECT city, started_at AS event_time, avg(distance) OVER (
    PARTITION BY city ORDER BY started_at RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW
) AS mean_distance
FROM trips
"""
LABELS = """\
SELECT trip, started_at AS event_time, delay > 15 AS label, started_at + INTERVAL 1 HOUR AS known_at
FROM trips
"""
MODEL = """\
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def build():
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        ("passthrough", ["distance"]),
    )
    return make_pipeline(columns, LogisticRegression())
"""
CALLBACK = """\
import sys
from importlib.util import find_spec
if find_spec("ml_platform.serving.callbacks") is None:
    sys.exit()  # of before 0.1.0
from ml_platform.serving.callbacks.store import Callback, FileDatabase, CallbackStore
from pathlib import Path
import os
file = Path(os.environ["ML_PLATFORM_DATA"], "control", "callbacks.sqlite")
store = CallbackStore(FileDatabase(file))
store.add([Callback("c1", "run-1", "trips", "orchestrator", "", "ada", "delivered", 0, "200",
                    0.0, 2e9, 2e9, 2e9)])
"""
FIRST, DAYS, TRIPS_A_DAY = date(2024, 3, 1), 24, 17
SCORED = "2024-03-13...2024-03-22"
LEFT_OUT = ("spill", "derived", "reports", ".lock", "-wal", "-shm", "__pycache__")


def main(target: Path) -> None:
    """Make the lake and pack it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        declare(folder)
        land(folder)
        commands(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tarfile.open(target, "w:xz") as packed:
            for name in ("use_cases", "data"):
                packed.add(folder / name, name, filter=lasting)


def declare(folder: Path) -> None:
    """Write the use case."""
    case = folder / "use_cases" / "trips"
    (case / "features").mkdir(parents=True)
    (case / "use_case.yaml").write_text(SPEC)
    (case / "features" / "pace.sql").write_text(PACE)
    (case / "labels.sql").write_text(LABELS)
    (case / "model.py").write_text(MODEL)


def land(folder: Path) -> None:
    """Write a file a day."""
    landing = folder / "data" / "landing" / "trips"
    landing.mkdir(parents=True)
    chance = random.Random(7)
    for day in range(DAYS):
        (landing / f"day{day:02}.csv").write_text(rows_of(day, chance))


def rows_of(day: int, chance: random.Random) -> str:
    """The landing file of one day, counted from the first."""
    lines = ["trip,started_at,city,distance,delay"]
    for number in range(TRIPS_A_DAY):
        at = datetime.combine(FIRST, datetime.min.time()) + timedelta(
            days=day, hours=6, minutes=50 * number
        )
        city, distance = chance.choice("ABC"), round(chance.uniform(1, 20), 2)
        delay = round(distance + (8 if city == "A" else 0) + chance.uniform(-6, 6), 2)
        lines.append(f"{day * 100 + number},{at.isoformat()}-05:00,{city},{distance},{delay}")
    return "\n".join(lines) + "\n"


def commands(folder: Path) -> None:
    """Run what a deployment would."""
    run(folder, "ingest", "trips")
    first = folder / "data" / "landing" / "trips" / "day02.csv"
    first.write_text(first.read_text().replace(",A,", ",B,", 1))
    run(folder, "ingest", "trips")
    for name in ("features", "labels"):
        run(folder, name, "trips")
    run(folder, "train", "trips", "--cutoff", "2024-03-13")
    run(folder, "promote", "trips", "1")
    for name in ("score", "drift", "performance"):
        run(folder, name, "trips", "--range", SCORED)
    run(folder, "publish", "trips")
    run(folder, "keys", "create", "--name=ada", "--role=predictor", "--use-case=trips")
    python(folder, "-c", CALLBACK)


def run(folder: Path, *arguments: str) -> None:
    """Run a command of the release."""
    python(folder, "-m", "ml_platform.cli", *arguments)


def python(folder: Path, *arguments: str) -> None:
    """Run Python with the release's package and the deployment's settings."""
    environment = {
        **os.environ,
        "ML_PLATFORM_USE_CASES": str(folder / "use_cases"),
        "ML_PLATFORM_DATA": str(folder / "data"),
        "USER": "ada",
    }
    subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True)


def lasting(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """What is packed of a file or folder; None leaves it out."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if member.name.endswith(LEFT_OUT) else member


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
