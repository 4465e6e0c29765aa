"""A small use case that tests of models share: is a trip late, how late, and where does it go?"""

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_platform.features import compute_features, compute_labels
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Table, replace_windows

ZONE = ZoneInfo("America/New_York")
COMMIT = Commit("test", "0")

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
  pace: {entity: [trip], lookback: 1d, ttl: 1d}
examples: {source: trips, entity: [trip], columns: [city, distance]}
label: {task: TASK, horizon: 1d}
model: {build: "model:build", window: 20d, holdout: 5d, metric: METRIC}
monitoring: {reference_rows: 200}
"""

LABELS = {
    "binary": "delay > 15",
    "multiclass": "CASE WHEN delay < 5 THEN 'early' WHEN delay < 20 THEN 'on time' ELSE 'late' END",
    "regression": "delay",
}
METRICS = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "mae"}

MODEL = """\
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoosting{kind}
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder


def clip(values):
    return values.clip(upper=LONGEST)


LONGEST = 100


def build():
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        (FunctionTransformer(clip), make_column_selector(dtype_include="number")),
    )
    return make_pipeline(columns, HistGradientBoosting{kind}(max_iter=10))
"""


def write_folder(root: Path, task: str, model: str | None = None, name: str = "trips") -> UseCase:
    folder = root / name
    (folder / "features").mkdir(parents=True, exist_ok=True)
    spec = SPEC.replace("TASK", task).replace("METRIC", METRICS[task])
    (folder / "use_case.yaml").write_text(spec)
    (folder / "features" / "pace.sql").write_text(
        "SELECT trip, started_at AS event_time, distance / 60 AS pace FROM trips\n"
    )
    (folder / "labels.sql").write_text(
        f"SELECT trip, started_at AS event_time, {LABELS[task]} AS label, "
        "started_at + INTERVAL 6 HOUR AS known_at FROM trips\n"
    )
    kind = "Regressor" if task == "regression" else "Classifier"
    (folder / "model.py").write_text(model or MODEL.format(kind=kind))
    return load_use_case(folder)


def at(day: int, hour: int = 0, month: int = 3) -> datetime:
    return datetime(2024, month, day, hour, tzinfo=ZONE)


def days(first: int, last: int) -> Window:
    return Window(at(first), at(last) + timedelta(days=1))


def trips(first: int, last: int, a_day: int = 40, seed: int = 0) -> pd.DataFrame:
    """Trips of March 2024, whose delay depends on city and distance."""
    rng = np.random.default_rng(seed)
    count = (last - first + 1) * a_day
    midnights = pd.date_range(date(2024, 3, first), date(2024, 3, last), tz=ZONE)
    minutes = np.tile(np.arange(a_day) * (22 * 60 // a_day), len(midnights))
    distance = rng.uniform(1, 60, count)
    city = rng.choice(["Albany", "Boston", "Chicago"], count)
    delay = distance / 3 + 10 * (city == "Boston") + rng.normal(0, 4, count) - 5
    return pd.DataFrame(
        {
            "trip": np.arange(count) + first * 10_000,
            "started_at": midnights.repeat(a_day) + pd.to_timedelta(minutes, unit="m"),
            "city": pd.Series(city, dtype=object).where(rng.random(count) > 0.02, None),
            "distance": np.where(rng.random(count) > 0.02, distance, np.nan),
            "delay": delay,
        }
    )


def land(lake: Lake, use_case: UseCase, rows: pd.DataFrame, window_range: Window) -> None:
    """Store trips with their features and labels, as if they had been ingested."""
    shown = rows.assign(known_at=rows["started_at"])
    columns = {**use_case.sources["trips"].columns, "known_at": "TIMESTAMPTZ"}
    table = Table(use_case.name, "trips", columns, ("started_at", "trip"))
    with lake.cursor(use_case.timezone) as cursor:
        cursor.register("landed", shown)
        replace_windows(
            lake, cursor, table, "FROM landed",
            time="started_at", calendar=use_case.calendar, window_range=window_range, commit=COMMIT,
        )  # fmt: skip
        cursor.unregister("landed")
    compute_features(lake, use_case, "pace", window_range, COMMIT)
    compute_labels(lake, use_case, window_range, COMMIT)


def land_file(lake: Lake, use_case: UseCase, rows: pd.DataFrame, window_range: Window) -> None:
    """Ingest trips from a file, with their features and labels."""
    file = Path(lake.settings.landing_uri) / use_case.name / "trips.csv"
    file.parent.mkdir(parents=True)
    rows.to_csv(file, index=False)
    ingest(lake, use_case, "trips", window_range, COMMIT)
    compute_features(lake, use_case, "pace", window_range, COMMIT)
    compute_labels(lake, use_case, window_range, COMMIT)


def settings(root: Path) -> Settings:
    return Settings(data=root / "data", use_cases=root)
