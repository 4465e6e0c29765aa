"""Hourly counts by sensor, as passers-by give them: a use case of many fine windows."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase

START = datetime(2018, 1, 1, tzinfo=UTC)
SENSORS = 21
SPEC = """\
description: How many people will pass a sensor in an hour?
partitions: {cadence: hourly, start: 2018-01-01, timezone: UTC}
sources:
  counts:
    files: "*.csv"
    event_time: counted_at
    key: [sensor, counted_at]
    columns: {sensor: BIGINT, counted_at: TIMESTAMPTZ, people: BIGINT}
    rules: ["people >= 0"]
features:
  recent: {entity: [sensor], lookback: 2d, ttl: 1d}
examples:
  source: counts
  entity: [sensor]
  columns: ["hour(counted_at) AS hour", "dayofweek(counted_at) AS weekday"]
label: {task: regression, horizon: 2h}
model: {build: "model:build", window: 90d, holdout: 3d, metric: mae, min_rows: 200}
gate: {min_improvement: -1}
monitoring: {window: 28d, performance: {max: 1000}, reference_rows: 5000}
"""
RECENT = """\
SELECT sensor, counted_at + INTERVAL 1 HOUR AS event_time, people AS last_hour,
    avg(people) OVER day AS day_mean, max(people) OVER day AS day_most
FROM counts
WINDOW day AS (
    PARTITION BY sensor
    ORDER BY counted_at RANGE BETWEEN INTERVAL 23 HOURS PRECEDING AND CURRENT ROW
)
"""
LABELS = """\
SELECT sensor, counted_at AS event_time, people AS label,
    counted_at + INTERVAL 1 HOUR AS known_at
FROM counts
"""
MODEL = """\
from sklearn.ensemble import HistGradientBoostingRegressor


def build():
    return HistGradientBoostingRegressor(max_iter=20, early_stopping=False, random_state=0)
"""


def declare(folder: Path) -> UseCase:
    """`passers` below a folder's `use_cases`."""
    case = folder / "use_cases" / "passers"
    (case / "features").mkdir(parents=True)
    (case / "use_case.yaml").write_text(SPEC)
    (case / "features" / "recent.sql").write_text(RECENT)
    (case / "labels.sql").write_text(LABELS)
    (case / "model.py").write_text(MODEL)
    return load_use_case(case)


def land(landing: Path, hours: int, file: str = "%Y-%m") -> None:
    """Counts of the first hours, one CSV file a month; file: format of the files' names."""
    landing.mkdir(parents=True)
    rows = counts(hours)
    for name, of_file in rows.groupby(rows["counted_at"].dt.strftime(file)):
        shown = of_file.assign(counted_at=of_file["counted_at"].dt.strftime("%Y-%m-%dT%H:%M:%SZ"))
        shown.to_csv(landing / f"{name}.csv", index=False)


def land_hour(landing: Path, hour: int, seed: int) -> None:
    """A file that corrects what all sensors counted in one hour."""
    at = f"{START + timedelta(hours=hour):%Y-%m-%dT%H:%M:%SZ}"
    people = np.random.default_rng(seed).integers(0, 2000, SENSORS)
    rows = pd.DataFrame({"sensor": np.arange(SENSORS), "counted_at": at, "people": people})
    rows.to_csv(landing / f"corrected_{hour}_{seed}.csv", index=False)


def counts(hours: int) -> pd.DataFrame:
    """`sensor`, `counted_at` and `people`: busy by day and in summer, sensors differ in size."""
    hour, sensor = np.repeat(np.arange(hours), SENSORS), np.tile(np.arange(SENSORS), hours)
    day = 1 + np.sin((hour % 24 - 7) * np.pi / 12)
    week = np.where((hour // 24) % 7 < 5, 1.0, 0.6)
    summer = 1 + 0.3 * np.sin(hour / (365.25 * 24) * 2 * np.pi)
    busy = 40 * (1 + sensor) * day * week * summer
    return pd.DataFrame(
        {
            "sensor": sensor,
            "counted_at": pd.Timestamp(START) + pd.to_timedelta(hour, unit="h"),
            "people": np.random.default_rng(0).poisson(busy),
        }
    )
