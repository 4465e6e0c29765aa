"""What a replay takes to have been known at a moment of history."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.features import compute_labels
from ml_platform.replay.replay_inputs import ReplayInputs
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake
from ml_platform.training.training_set import collect, cut, training_range
from tests import trips_use_case as trips

TENTH = 10_000 + 9 * 40
"""The trip that starts at midnight of the 10th."""
LABELS = Commit("test", "1", "trips/labels")


@dataclass
class Case:
    lake: Lake
    use_case: UseCase
    rows: pd.DataFrame

    def known(self) -> ReplayInputs:
        return ReplayInputs.read(self.lake, self.use_case, trips.days(1, 28))

    def label(self, known: ReplayInputs, trip: int, day: int, hour: int = 0) -> bool | None:
        """What was known of a trip's label at a moment of March."""
        rows = known.labelled(trips.days(1, 28), trips.at(day, hour))
        found = rows["label"][rows["trip"] == trip].tolist()
        return found[0] if found else None

    def relabel(self, condition: str, known_at: str, commit: Commit = LABELS) -> None:
        query = (
            f"SELECT trip, started_at AS event_time, {condition} AS label, {known_at} AS known_at "
            "FROM trips"
        )
        label = self.use_case.label.model_copy(update={"query": query})
        changed = self.use_case.model_copy(update={"label": label})
        compute_labels(self.lake, changed, trips.days(1, 28), commit)


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    use_case = trips.write_folder(tmp_path, "binary")
    lake = Lake(trips.settings(tmp_path))
    rows = trips.trips(1, 28)
    trips.land(lake, use_case, rows, trips.days(1, 28))
    yield Case(lake, use_case, rows)
    lake.close()


def test_a_training_set_is_the_one_that_training_collects(case: Case) -> None:
    cutoff = trips.at(21)
    known, window_range = case.known(), training_range(case.use_case, cutoff)
    with case.lake.cursor(case.use_case.timezone) as cursor:
        live = collect(cursor, case.lake, case.use_case, cutoff, known.snapshot)
    replayed = cut(
        case.use_case, known.labelled(window_range, cutoff), window_range, known.snapshot
    )
    assert replayed.digest == live.digest


def test_a_label_counts_from_when_it_was_known(case: Case) -> None:
    known = case.known()
    # Six hours after midnight it is seven: the clocks change that night.
    assert case.label(known, TENTH, 10, 7) is None
    assert case.label(known, TENTH, 10, 8) is not None
    window = case.use_case.calendar.window_at(trips.at(10))
    # 40 trips a day, each with a label of its own moment.
    assert known.revision(window, trips.at(10, 6)) == 0
    assert known.revision(window, trips.at(12)) == 40


def test_a_label_of_other_code_was_never_known(case: Case) -> None:
    case.relabel("trip % 2 = 0", "started_at + INTERVAL 6 HOUR", Commit("x", "0", "trips/labels"))
    case.relabel("trip % 2 = 1", "started_at + INTERVAL 120 HOUR")
    known, trip = case.known(), TENTH
    assert [case.label(known, trip, day) for day in (11, 15, 16)] == [None, None, False]


def test_predictions_stand_beside_the_labels_of_a_moment(case: Case) -> None:
    window = case.use_case.calendar.window_at(trips.at(10))
    known = case.known()
    predictions = pd.DataFrame({"probability": [0.5] * 40})
    rows = known.beside(predictions, window, trips.at(10, 12))
    labelled = rows["label"].notna()
    assert labelled.tolist() == rows["known_at"].notna().tolist()
    assert 0 < labelled.sum() < 40
    assert (rows["known_at"][labelled] < pd.Timestamp(trips.at(10, 12))).all()
    assert known.beside(predictions, window, window.end + timedelta(days=1))["label"].notna().all()
