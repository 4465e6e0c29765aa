"""Law 7 under corrections: what was known then stays as it was, to the bit.

Trips of 22 days land day by day; 17 days after the cutoff of the first model a hundred trips and as
many of their outcomes are corrected, and of a hundred others the service is given another label.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import report_performance
from ml_platform.registry import Registry
from ml_platform.replay.replay_inputs import ReplayInputs
from ml_platform.scoring import reproduce, score, trace
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train
from ml_platform.training.training_set import TrainingSet, collect, labelled
from tests import moody_trips as moods

pytestmark = pytest.mark.slow

COMMIT = Commit("test", "0")
DAYS, CUTOFF, CORRECTED = 22, 12, 29


def midnight(number: int) -> datetime:
    return datetime(*moods.day(number).timetuple()[:3], tzinfo=moods.ZONE)


def days(first: int, last: int) -> Window:
    return Window(midnight(first), midnight(last + 1))


@dataclass
class World:
    """Everything as it was before the corrections landed, and the lake after them."""

    settings: Settings
    lake: Lake
    registry: Registry
    use_case: UseCase
    rows: pd.DataFrame
    before: dict[str, Any] = field(default_factory=dict)

    def land(self, first: int, last: int) -> None:
        for number in range(first, last + 1):
            moods.land(self.settings, self.rows, number)
            self._date(number, "*/" + str(moods.day(number)) + ".csv")

    def correct(self) -> None:
        """Correct every tenth trip: its distance, and whether it was late."""
        wrong = self.rows["trip"] % 10 == 3
        corrected = self.rows[wrong].assign(
            distance=90.0 - self.rows["distance"], delay=30.0 - self.rows["delay"]
        )
        landing = Path(self.settings.landing_uri) / "moods"
        trips, arrivals = (list(self.use_case.sources[s].columns) for s in ("trips", "arrivals"))
        corrected[trips].to_csv(landing / "trips" / "corrected.csv", index=False)
        corrected[arrivals].to_csv(landing / "arrivals" / "corrected.csv", index=False)
        self._date(CORRECTED, "*/corrected.csv")
        landed = self.rows["arrived_at"] < midnight(DAYS)
        self.answer(landed & (self.rows["trip"] % 10 == 7), midnight(CORRECTED + 1))

    def answer(self, reported: "pd.Series[bool]", received: datetime) -> None:
        """Land what callers say of trips: that they were late where the source says they weren't.

        They say to have known it two days after the trip.
        """
        rows = self.rows[reported]
        said = pd.DataFrame(
            {
                "feedback_id": rows["trip"].astype(str),
                "prediction_id": None,
                "trip": rows["trip"],
                "event_time": rows["started_at"].map(lambda at: at.isoformat()),
                "label": rows["delay"] <= 15,
                "kind": "correction",
                "origin": "feedback",
                "given_by": "ada",
                "known_at": (rows["started_at"] + timedelta(hours=48)).map(
                    lambda at: at.isoformat()
                ),
                "received_at": received.isoformat(),
            }
        )
        folder = Path(self.settings.landing_uri) / "moods" / "feedback"
        folder.mkdir(exist_ok=True)
        said.to_json(folder / "answers.jsonl", orient="records", lines=True)

    def compute(self, window_range: Window) -> None:
        for source in self.use_case.sources:
            ingest(self.lake, self.use_case, source, window_range, COMMIT)
        compute_features(self.lake, self.use_case, "pace", window_range, COMMIT)
        compute_labels(self.lake, self.use_case, window_range, COMMIT)

    def training_set(self, cutoff: int) -> TrainingSet:
        with self.lake.cursor(self.use_case.timezone) as cursor:
            snapshot = self.lake.snapshot(cursor)
            return collect(cursor, self.lake, self.use_case, midnight(cutoff), snapshot)

    def table(self, name: str, columns: str = "*") -> pd.DataFrame:
        with self.lake.cursor(self.use_case.timezone) as cursor:
            return cursor.execute(
                f"SELECT {columns} FROM lake.moods.{name} ORDER BY ALL"
            ).fetch_df()

    def report(self, by: int) -> dict[tuple[date, str], float]:
        """The metric of each day and revision, reported with the labels known by a midnight."""
        window_range = days(CUTOFF, DAYS - 1)
        report_performance(self.lake, self.use_case, window_range, COMMIT, now=midnight(by))
        rows = self.table("performance_report", "window_at, revision, value, metric")
        rows = rows[rows["metric"] == "roc_auc"]
        return {
            (at.date(), revision): value
            for at, revision, value in rows[["window_at", "revision", "value"]].to_numpy()
        }

    def _date(self, number: int, files: str) -> None:
        at = (midnight(number) + timedelta(days=1)).timestamp()
        for file in (Path(self.settings.landing_uri) / "moods").glob(files):
            os.utime(file, (at, at))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("corrections")
    use_case = moods.write_folder(root, feedback=True)
    settings = Settings(data=root / "data", use_cases=root)
    world = World(settings, Lake(settings), Registry(settings), use_case, moods.trips(DAYS, ()))
    world.land(0, DAYS - 1)
    world.compute(days(0, DAYS - 1))
    report = train(world.lake, world.registry, use_case, midnight(CUTOFF), COMMIT, tags={})
    decide(world.lake, world.registry, use_case, report.version, COMMIT, decided_by="test")
    score(world.lake, world.registry, use_case, days(CUTOFF, DAYS - 1), COMMIT)
    world.before = {
        "training": {cutoff: world.training_set(cutoff).digest for cutoff in (CUTOFF, 20)},
        "predictions": world.table("predictions"),
        "performance": world.report(DAYS + 2),
        "known": ReplayInputs.read(world.lake, use_case, days(0, DAYS - 1)),
    }
    world.correct()
    world.compute(days(0, DAYS - 1))
    yield world
    world.lake.close()


def test_the_corrections_reached_the_tables(world: World) -> None:
    corrected = int((world.rows["trip"] % 10 == 3).sum())
    assert len(world.table("trips_versions")) == 2 * corrected
    assert len(world.table("pace_features_versions")) == 2 * corrected
    reported = len(world.table("feedback"))
    assert reported > 100
    assert 2 * reported < len(world.table("labels_versions")) < 2 * reported + 2 * corrected


def test_the_training_set_at_an_earlier_cutoff_is_the_same_to_the_row(world: World) -> None:
    for cutoff, digest in world.before["training"].items():
        assert world.training_set(cutoff).digest == digest


def test_revised_values_are_others(world: World) -> None:
    revised = world.use_case.model_copy(update={"values": "as_revised"})
    as_known, world.use_case = world.use_case, revised
    try:
        assert world.training_set(CUTOFF).digest != world.before["training"][CUTOFF]
    finally:
        world.use_case = as_known


def test_predictions_recomputed_by_the_same_champion_are_the_same_to_the_bit(world: World) -> None:
    score(world.lake, world.registry, world.use_case, days(CUTOFF, DAYS - 1), COMMIT)
    pd.testing.assert_frame_equal(
        world.table("predictions"), world.before["predictions"], check_exact=True
    )
    with world.lake.cursor() as cursor:
        cursor.execute("DELETE FROM lake.moods.predictions")
    score(world.lake, world.registry, world.use_case, days(CUTOFF, DAYS - 1), COMMIT)
    stamps = ["snapshot", "scored_at", "_snapshot"]
    pd.testing.assert_frame_equal(
        world.table("predictions").drop(columns=stamps),
        world.before["predictions"].drop(columns=stamps),
        check_exact=True,
    )
    assert reproduce(world.lake, world.registry, world.use_case, days(14, 14)).is_exact


def test_a_trace_shows_the_rows_that_were_known(world: World) -> None:
    trip = world.rows[(world.rows["trip"] % 10 == 3) & (world.rows["trip"] > 13 * moods.A_DAY)]
    number, distance = trip.iloc[0][["trip", "distance"]]
    found = trace(world.lake, world.registry, world.use_case, {"trip": str(number)})
    (feature,) = found.features
    assert feature.row is not None
    assert feature.row["pace"] == pytest.approx(distance / 60)
    (source,) = feature.sources
    ((file, _), *_) = source.origins
    assert file != "trips/corrected.csv"


def test_performance_says_what_was_reported_and_what_is_known_now(world: World) -> None:
    before = world.before["performance"]
    early, late = world.report(CORRECTED - 1), world.report(CORRECTED + 5)
    days_reported = {at for at, _ in before}
    assert len(days_reported) == DAYS - CUTOFF
    for at in days_reported:
        assert early[at, "first"] == late[at, "first"] == before[at, "first"]
        # Before the corrections arrived all labels were as they had been.
        assert early[at, "current"] == before[at, "current"]
        assert late[at, "current"] != before[at, "current"]
    with world.lake.cursor() as cursor:
        cursor.execute("DELETE FROM lake.moods.performance_report")
    again = world.report(CORRECTED + 5)
    assert {k: v for k, v in again.items() if k[1] == "first"} == {
        k: v for k, v in before.items() if k[1] == "first"
    }


def test_a_replay_knows_at_each_moment_what_was_known_then(world: World) -> None:
    before: ReplayInputs = world.before["known"]
    now = ReplayInputs.read(world.lake, world.use_case, days(0, DAYS - 1))
    pd.testing.assert_frame_equal(now.examples, before.examples, check_exact=True)
    for by in (CUTOFF, 20, CORRECTED):
        pd.testing.assert_frame_equal(
            now.labelled(days(0, DAYS - 1), midnight(by)),
            before.labelled(days(0, DAYS - 1), midnight(by)),
        )
    known, corrected = (
        each.labelled(days(0, DAYS - 1), midnight(CORRECTED + 2)) for each in (before, now)
    )
    assert len(known) == len(corrected)
    differ = (known["label"] != corrected["label"]).to_numpy()
    assert np.array_equal(np.unique(known["trip"][differ] % 10), [3, 7])
    later = collect_at(world, CORRECTED + 2)
    pd.testing.assert_frame_equal(later, corrected)


def collect_at(world: World, by: int) -> pd.DataFrame:
    with world.lake.cursor(world.use_case.timezone) as cursor:
        snapshot = world.lake.snapshot(cursor)
        return labelled(
            cursor, world.lake, world.use_case, days(0, DAYS - 1), midnight(by), snapshot
        )
