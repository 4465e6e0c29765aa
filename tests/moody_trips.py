"""Trips whose outcomes arrive later, from a file a day, and whose world changes: for retraining.

Whether a trip is late depends on city and distance; from the day of the shift on, the other way
round, and trips get longer. So drift and performance both fail, and a new model helps.
"""

from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase

ZONE = ZoneInfo("America/New_York")
FIRST = date(2024, 3, 1)
A_DAY = 80

SPEC = """\
description: Trips of changing moods
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  trips:
    files: "trips/*.csv"
    event_time: started_at
    key: [trip]
    columns: {trip: BIGINT, started_at: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE}
  arrivals:
    files: "arrivals/*.csv"
    event_time: arrived_at
    key: [trip]
    columns: {trip: BIGINT, started_at: TIMESTAMPTZ, arrived_at: TIMESTAMPTZ, delay: DOUBLE}
features:
  pace: {entity: [trip], lookback: 1d, ttl: 1d}
examples: {source: trips, entity: [trip], columns: [city, distance]}
label: {task: binary, horizon: 2dFEEDBACK}
model: {build: "model:build", window: 8d, holdout: 3d, metric: roc_auc, schedule: "0 5 * * 3"}
gate: {confidence: 0.6}
monitoring:
  window: 4d
  reference_rows: 200
  drift: {share: 0.3, min_rows: 60}
  performance: {min: 0.75, min_rows: 20}
retrain: {on: ON, sustained: 2 of 3, cooldown: 4d, window: 6d}
"""
MODEL = """\
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder


def build():
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["city"]),
        ("passthrough", make_column_selector(dtype_include="number")),
    )
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=10, random_state=0))
"""


def write_folder(
    root: Path, on: str = "[drift, performance, schedule]", *, feedback: bool = False
) -> UseCase:
    folder = root / "moods"
    (folder / "features").mkdir(parents=True)
    given = ", feedback: {}" if feedback else ""
    spec = SPEC.replace("ON", on).replace("FEEDBACK", given)
    (folder / "use_case.yaml").write_text(spec)
    (folder / "features" / "pace.sql").write_text(
        "SELECT trip, started_at AS event_time, distance / 60 AS pace FROM trips\n"
    )
    (folder / "labels.sql").write_text(
        "SELECT trip, started_at AS event_time, delay > 15 AS label, known_at FROM arrivals\n"
    )
    (folder / "model.py").write_text(MODEL)
    return load_use_case(folder)


def day(number: int) -> date:
    """The day of a number; 0 is the first one."""
    return FIRST + timedelta(days=number)


def trips(days: int, shifts: tuple[int, ...], seed: int = 0) -> pd.DataFrame:
    """Trips of the first days, with arrivals up to a day and a half after they started.

    shifts: numbers of the days on which the world turns over.
    """
    rng = np.random.default_rng(seed)
    count = days * A_DAY
    midnights = pd.DatetimeIndex(
        [datetime(*day(n).timetuple()[:3], tzinfo=ZONE) for n in range(days)]
    )
    minutes = np.tile(np.arange(A_DAY) * (22 * 60 // A_DAY), days)
    number = np.repeat(np.arange(days), A_DAY)
    turned = sum((number >= shift).astype(int) for shift in shifts) % 2 == 1
    distance = rng.uniform(1, 60, count) + 30 * turned
    city = rng.choice(["Albany", "Boston", "Chicago"], count)
    strength = distance / 3 + 10 * (city == "Boston") + rng.normal(0, 4, count)
    delay = np.where(turned, 45 - strength, strength - 5)
    started = midnights.repeat(A_DAY) + pd.to_timedelta(minutes, unit="m")
    return pd.DataFrame(
        {
            "trip": np.arange(count),
            "started_at": started,
            "city": city,
            "distance": distance,
            "arrived_at": started + pd.to_timedelta(rng.uniform(0.5, 36, count), unit="h"),
            "delay": delay,
        }
    )


def land(settings: Settings, rows: pd.DataFrame, number: int) -> None:
    """Write the files of one day: what started on it, and what arrived on it."""
    for source, time, columns in (
        ("trips", "started_at", ["trip", "started_at", "city", "distance"]),
        ("arrivals", "arrived_at", ["trip", "started_at", "arrived_at", "delay"]),
    ):
        folder = Path(settings.landing_uri) / "moods" / source
        folder.mkdir(parents=True, exist_ok=True)
        part = rows[rows[time].dt.tz_convert(ZONE).dt.date == day(number)]
        part[columns].to_csv(folder / f"{day(number)}.csv", index=False)
