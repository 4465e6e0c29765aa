"""Rides of which a file a day lands, with a model version before and after a week: for impacts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.kept_models import KeptModels, promote

SPEC = """\
description: Is a ride late?
partitions: {cadence: daily, start: 2024-03-01}
sources:
  rides:
    files: "rides/*.csv"
    event_time: began
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE}
  arrivals:
    files: "arrivals/*.csv"
    event_time: arrived
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, arrived: TIMESTAMPTZ, city: VARCHAR, delay: DOUBLE}
features:
  city: {entity: [city], lookback: 1d, ttl: 12h}
  share: {entity: [city], lookback: 6h, ttl: 1d}
examples: {source: rides, entity: [ride], columns: [city, distance]}
label: {task: binary, horizon: 1d}
model: {metric: roc_auc, window: 4d, holdout: 2d}
monitoring:
  window: 2d
  drift: {min_rows: 3}
  performance: {min: 0.5, min_rows: 3}
"""
CITY = """\
SELECT DISTINCT city, arrived AS event_time,
    sum(delay) OVER (PARTITION BY city ORDER BY arrived RANGE INTERVAL 8 HOURS PRECEDING) AS delays
FROM arrivals
"""
# A row of one city changes those of the others.
SHARE = """\
SELECT DISTINCT city, arrived AS event_time,
    sum(delay) OVER (PARTITION BY city ORDER BY arrived RANGE INTERVAL 6 HOURS PRECEDING)
    / sum(delay) OVER (ORDER BY arrived RANGE INTERVAL 6 HOURS PRECEDING) AS share
FROM arrivals
"""
LABELS = "SELECT ride, began AS event_time, delay > 10 AS label, known_at FROM arrivals\n"
TABLES = (
    "city_features", "share_features", "labels", "predictions", "drift_report",
    "performance_report",
)  # fmt: skip
STAMPS = {"_snapshot", "snapshot", "scored_at", "labels_known_by", "published_at"}
COMMIT = Commit("run", "code")
DAYS, CUTOFFS = 9, (4, 7)
"""Days that land, and those at whose start a version is trained that serves from then on."""


def at(day: int, hour: float = 0) -> datetime:
    return datetime(2024, 3, day, tzinfo=UTC) + timedelta(hours=hour)


def key(day: int) -> str:
    return f"2024-03-{day:02d}"


def write_folder(root: Path) -> UseCase:
    folder = root / "rides"
    (folder / "features").mkdir(parents=True)
    (folder / "use_case.yaml").write_text(SPEC)
    (folder / "features" / "city.sql").write_text(CITY)
    (folder / "features" / "share.sql").write_text(SHARE)
    (folder / "labels.sql").write_text(LABELS)
    (folder / "model.py").write_text("def build():\n    pass\n")
    return load_use_case(folder)


def rides(seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rides of all days, and their arrivals, some of which are of the day after."""
    rng = np.random.default_rng(seed)
    began = [at(day, hour) for day in range(1, DAYS) for hour in sorted(rng.uniform(0, 24, 14))]
    city = rng.choice(["Rome", "Oslo", "Bonn"], len(began))
    delay = rng.uniform(1, 20, len(began)).round(1)
    asked = pd.DataFrame(
        {
            "ride": [f"r{number}" for number in range(len(began))],
            "began": pd.to_datetime(began).floor("s"),
            "city": city,
            "distance": rng.uniform(1, 30, len(began)).round(1),
        }
    )
    took = pd.to_timedelta(rng.uniform(1, 5, len(began)), unit="h").floor("s")
    arrived = asked[["ride", "began"]].assign(arrived=asked["began"] + took, city=city, delay=delay)
    return asked, arrived


@dataclass(frozen=True)
class ByHistory:
    """A ride is as late as its city is, more so where more of the rides learnt from were."""

    late: float

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        inputs = rows[["distance", "city__delays", "share__share"]].astype(float).fillna(-1.0)
        found = 1 / (1 + np.exp(-(inputs @ [0.02, 0.03, 0.5]).to_numpy() - self.late))
        return np.column_stack((1 - found, found))


class World:
    """A lake into which files land a day, and everything that is computed from them."""

    def __init__(self, root: Path, use_case: UseCase, asked: pd.DataFrame, arrived: pd.DataFrame):
        self.use_case = use_case
        self.lake = Lake(Settings(data=root))
        self.registry = KeptModels()
        for source, time, rows in (("rides", "began", asked), ("arrivals", "arrived", arrived)):
            for day in range(1, DAYS + 1):
                inside = (rows[time] >= at(day)) & (rows[time] < at(day + 1))
                if inside.any():
                    self.land(f"{source}/{key(day)}.csv", at(day + 1), rows[inside])

    def land(self, name: str, landed: datetime, rows: pd.DataFrame) -> None:
        file = Path(self.lake.settings.landing_uri) / "rides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(file, index=False)
        os.utime(file, (landed.timestamp(),) * 2)

    @property
    def all_days(self) -> Window:
        return Window(at(1), at(DAYS + 1))

    def ingest(self) -> None:
        for source in self.use_case.sources:
            ingest(self.lake, self.use_case, source, self.all_days, COMMIT)

    def compute(self) -> None:
        for view in self.use_case.features:
            compute_features(self.lake, self.use_case, view, self.all_days, COMMIT)
        compute_labels(self.lake, self.use_case, self.all_days, COMMIT)

    def train(self) -> None:
        for cutoff in CUTOFFS:
            learnt = Window(at(cutoff - 3), at(cutoff))
            version = self.registry.train(self.lake, self.use_case, learnt)
            model = self.registry.versions[version]
            late = float(model.reference["label"].astype(float).mean())
            self.registry.versions[version] = replace(model, estimator=ByHistory(late))
            promote(self.lake, self.use_case, version, at(cutoff))

    def report(self) -> None:
        served = Window(at(CUTOFFS[0]), at(DAYS + 1))
        score(self.lake, self.registry, self.use_case, served, COMMIT)
        report_drift(self.lake, self.registry, self.use_case, served, COMMIT)
        now = at(DAYS + 20)
        report_performance(self.lake, self.use_case, served, COMMIT, now=now)

    def whole(self) -> "World":
        self.ingest()
        self.compute()
        self.train()
        self.report()
        return self

    def content(self) -> dict[str, dict[datetime, list[Any]]]:
        """Rows by table and window, versions included, without what only says when."""
        found: dict[str, dict[datetime, list[Any]]] = {table: {} for table in TABLES}
        with self.lake.cursor() as cursor:
            stored = self.lake.tables(cursor, "rides")
            for table in TABLES:
                for name in {table, f"{table}_versions"} & stored:
                    frame = cursor.execute(f"FROM lake.rides.{name}").fetch_df()
                    frame = frame.drop(columns=[c for c in frame if c in STAMPS])
                    for start, rows in frame.groupby("window_start"):
                        said = [(name, *map(plain, row)) for row in rows.to_numpy()]
                        moment = start.to_pydatetime()
                        found[table][moment] = sorted(
                            [*found[table].get(moment, []), *said], key=repr
                        )
        return found

    def different_from(self, other: Mapping[str, Mapping[datetime, Any]]) -> dict[str, set[str]]:
        """Partitions, by table, that hold other rows."""
        ours = self.content()
        return {
            table: {
                f"{start:%Y-%m-%d}"
                for start in ours[table].keys() | other[table].keys()
                if ours[table].get(start) != other[table].get(start)
            }
            for table in TABLES
        }


def plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{value:.9g}")
    if isinstance(value, np.ndarray | list):
        return tuple(map(plain, value))
    return None if value is pd.NaT or value is pd.NA else value
