"""Rides whose files land at given moments, some of them corrections of what landed before."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd

from ml_platform.features import assemble, compute_features, compute_labels
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

SPEC = """\
description: Is a ride late?
partitions: {cadence: daily, start: 2024-03-01}
VALUES
sources:
  rides:
    files: "rides*.csv"
    event_time: began
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE}
  arrivals:
    files: "arrivals*.csv"
    event_time: arrived
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, arrived: TIMESTAMPTZ, city: VARCHAR, delay: DOUBLE}
features:
  city: {entity: [city], lookback: 1d, ttl: 1d}
examples: {source: rides, entity: [ride], columns: [city, distance]}
label: {task: binary, horizon: 2dFEEDBACK}
model: {metric: roc_auc, window: 20d, holdout: 4d}
"""
# The delays of a city so far this hour, each time that another ride arrives.
CITY = """\
SELECT DISTINCT city, arrived AS event_time,
    sum(delay) OVER (PARTITION BY city ORDER BY arrived RANGE INTERVAL 1 HOUR PRECEDING) AS delays
FROM arrivals
"""
LABELS = "SELECT ride, began AS event_time, delay > 10 AS label, known_at FROM arrivals\n"
COMMIT = Commit("run", "code")
OPEN = None
LATE = None


def at(day_and_hour: str) -> datetime:
    """A moment of March 2024: `2 08`, `2 08:30`."""
    day, hour = day_and_hour.split()
    hours, _, minutes = hour.partition(":")
    return datetime(2024, 3, int(day), int(hours), int(minutes or 0), tzinfo=UTC)


def days(first: int, last: int) -> Window:
    return Window(at(f"{first} 00"), at(f"{last} 00") + timedelta(days=1))


class World:
    """A use case whose files land at given moments."""

    def __init__(self, root: Path, lake: Lake) -> None:
        self.root, self.lake = root, lake
        self.landing = Path(lake.settings.landing_uri) / "rides"
        self.landing.mkdir(parents=True, exist_ok=True)
        for file in [*self.landing.rglob("*.*")]:
            file.unlink()
        self.use_case = self.declare()

    def declare(
        self, values: str = "as_known", city: str = CITY, feedback: str | None = None
    ) -> UseCase:
        folder = self.root / "rides"
        (folder / "features").mkdir(parents=True, exist_ok=True)
        given = "" if feedback is None else f", feedback: {feedback}"
        spec = SPEC.replace("VALUES", f"values: {values}").replace("FEEDBACK", given)
        (folder / "use_case.yaml").write_text(spec)
        (folder / "features" / "city.sql").write_text(city)
        (folder / "labels.sql").write_text(LABELS)
        (folder / "model.py").write_text("def build():\n    pass\n")
        self.use_case = load_use_case(folder)
        return self.use_case

    def land(self, name: str, landed: str, *rows: tuple[Any, ...]) -> None:
        """Write a file; moments in rows are as in `at`."""
        source = name.rstrip("0123456789")
        lines = [",".join(self.use_case.sources[source].columns)]
        lines += [
            ",".join(at(v).isoformat() if " " in str(v) else str(v) for v in row) for row in rows
        ]
        file = self.landing / f"{name}.csv"
        file.write_text("\n".join(lines) + "\n")
        os.utime(file, (at(landed).timestamp(),) * 2)

    def give(
        self,
        ride: str,
        began: str,
        label: bool,
        known: str,
        received: str | None = None,
        *,
        by_review: bool = False,
    ) -> None:
        """Land what came back of a ride; known, received: from when on it says to be, and came."""
        folder = self.landing / "feedback"
        folder.mkdir(exist_ok=True)
        number = f"{len(list(folder.iterdir())):03d}"
        said = {
            "feedback_id": number,
            "prediction_id": None,
            "ride": ride,
            "event_time": at(began).isoformat(),
            "label": label,
            "kind": "label",
            "origin": "review" if by_review else "feedback",
            "given_by": "ada",
            "known_at": at(known).isoformat(),
            "received_at": at(received or known).isoformat(),
        }
        (folder / f"{number}.jsonl").write_text(json.dumps(said) + "\n")

    def compute(self, first: int = 1, last: int = 3, rewrite: bool = False) -> None:
        """Ingest what has landed, and compute what is made of it."""
        for source in self.use_case.sources:
            ingest(self.lake, self.use_case, source, days(first, last), COMMIT, rewrite=rewrite)
        self.computed(days(first, last))

    def computed(self, window_range: Window) -> None:
        compute_features(self.lake, self.use_case, "city", window_range, COMMIT)
        compute_labels(self.lake, self.use_case, window_range, COMMIT)

    def examples(self, known_by: str | None = None, last: int = 3) -> list[tuple[Any, ...]]:
        """Ride, distance and delays of the city; with a moment also the label known by then."""
        frame = self.frame(known_by, last)
        names = ["ride", "distance", "city__delays", *(["label"] if known_by else [])]
        rows = frame[names].astype(object).where(frame[names].notna(), None)
        return [tuple(row) for row in rows.itertuples(index=False)]

    def frame(self, known_by: str | None = None, last: int = 3) -> pd.DataFrame:
        with self.lake.cursor() as cursor:
            snapshot = self.lake.snapshot(cursor)
            moment = at(known_by) if known_by else None
            return assemble(
                cursor, self.lake, self.use_case, days(1, last), snapshot, labels_known_by=moment
            )

    def versions(self, table: str, columns: str) -> list[tuple[Any, ...]]:
        """Columns, and day and hour from and until which a row was the truth."""
        with self.lake.cursor() as cursor:
            if f"{table}_versions" not in self.lake.tables(cursor, "rides"):
                return []
            moment = "strftime({}, '%-d %H')"
            time = "arrived" if table == "arrivals" else "event_time"
            return cursor.execute(
                f"SELECT {columns}, {moment.format('_known_from')}, "
                f"{moment.format('_known_until')} FROM lake.rides.{table}_versions "
                f"ORDER BY {time}, _known_from"
            ).fetchall()


def a_few_rides(world: World) -> None:
    """Rides of two days, of which one has not arrived, land at the midnights after them."""
    world.land("rides1", "1 00", ("a", "1 08", "Rome", 5), ("b", "1 10", "Rome", 6))
    world.land("rides2", "2 00", ("c", "2 08", "Rome", 7), ("d", "2 12", "Rome", 8))
    world.land(
        "arrivals1",
        "2 00",
        ("a", "1 08", "1 09", "Rome", 20),
        ("b", "1 10", "1 11", "Rome", 1),
        ("c", "2 08", "2 09", "Rome", 30),
    )
