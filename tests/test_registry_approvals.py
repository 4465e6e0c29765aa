"""A challenger that waits for a person, and what comes of the answer."""

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

import pandas as pd
import pytest

from ml_platform.errors import AnswerRefused, ModelNotFound
from ml_platform.registry import (
    ModelVersion,
    Promotion,
    answer,
    champion_at,
    history,
    latest_decision,
    record,
    waiting,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake, Table, replace_windows
from tests.kept_models import KeptModels
from tests.trips_use_case import COMMIT, at, days, settings, write_folder

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class World:
    lake: Lake
    registry: KeptModels
    use_case: UseCase

    def decided(self, version: int, day: int, decision: str, champion: int | None = None) -> None:
        figures = {"roc_auc": 0.8} | ({} if champion is None else {"champion_version": champion})
        hours = len(history(self.lake, self.use_case))
        row = Promotion(
            version, at(day), at(1) + timedelta(hours=hours), "gate", decision, "why", figures
        )
        assert record(self.lake, self.use_case, row, COMMIT)

    def answer(self, version: int, approve: bool = True, by: str = "ada") -> Promotion:
        return answer(
            self.lake, self.registry, self.use_case, version, approve=approve,
            decided_by=by, reason="looked at it", commit=COMMIT,
        )  # fmt: skip

    def champion(self, moment: datetime) -> int:
        return champion_at(history(self.lake, self.use_case), moment)

    def predict(self, *predicted: int) -> None:
        """One prediction on each of some days."""
        columns = {"trip": "BIGINT", "event_time": "TIMESTAMPTZ", "model_version": "INTEGER"}
        table = Table("trips", "predictions", columns, ("event_time",))
        rows = ", ".join(f"({d}, TIMESTAMPTZ '{at(d).isoformat()}', 1)" for d in predicted)
        with self.lake.cursor(self.use_case.timezone) as cursor:
            replace_windows(
                self.lake, cursor, table,
                f"SELECT * FROM (VALUES {rows}) t(trip, event_time, model_version)",
                time="event_time", calendar=self.use_case.calendar,
                window_range=days(min(predicted), max(predicted)), commit=COMMIT,
            )  # fmt: skip


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    lake = Lake(settings(tmp_path))
    yield World(lake, KeptModels(), write_folder(tmp_path, "binary"))
    lake.close()


@pytest.fixture
def asked(world: World) -> World:
    """Version 1 serves, version 2 passed the gate and waits."""
    world.decided(1, 5, "promoted")
    world.decided(2, 10, "waiting", champion=1)
    return world


def test_a_version_that_waits_does_not_serve_and_shows_its_figures(asked: World):
    assert asked.champion(at(12)) == 1
    (open_one,) = waiting(asked.lake, asked.use_case)
    assert (open_one.version, open_one.reason) == (2, "why")
    assert open_one.figures == {"roc_auc": 0.8, "champion_version": 1}


def test_an_approval_is_a_row_of_its_own_and_the_version_serves(asked: World):
    given = asked.answer(2)
    assert [p.decision for p in history(asked.lake, asked.use_case)] == [
        "promoted",
        "waiting",
        "promoted",
    ]
    assert (given.decided_by, given.reason) == ("ada", "looked at it")
    assert given.figures == {"roc_auc": 0.8, "champion_version": 1}
    assert (asked.champion(at(9)), asked.champion(at(10))) == (1, 2)
    assert asked.registry.aliases == {"champion": 2}
    shown, _ = asked.registry.described[2]
    assert (shown["decision"], shown["decided by"]) == ("promoted", "ada")
    assert waiting(asked.lake, asked.use_case) == []


def test_a_rejected_version_never_serves(asked: World):
    assert asked.answer(2, approve=False).decision == "refused"
    assert asked.champion(at(20)) == 1
    assert asked.registry.aliases == {"champion": 1}
    assert waiting(asked.lake, asked.use_case) == []


def test_what_the_old_champion_predicted_in_the_meantime_stays_its_own(asked: World):
    asked.predict(8, 9, 10, 11)
    assert asked.answer(2).effective_from == at(12)
    assert (asked.champion(at(11)), asked.champion(at(12))) == (1, 2)


def test_predictions_from_before_the_cutoff_do_not_delay_it(asked: World):
    asked.predict(7, 8)
    assert asked.answer(2).effective_from == at(10)


def test_a_second_answer_is_refused_and_says_what_the_first_was(asked: World):
    asked.answer(2, by="ada")
    with pytest.raises(AnswerRefused, match=r"version 2 of trips was promoted by ada on .* UTC, "):
        asked.answer(2, approve=False, by="eve")
    assert len(history(asked.lake, asked.use_case)) == 3


def test_nobody_can_answer_what_was_not_asked(asked: World):
    with pytest.raises(AnswerRefused, match=r"was promoted by gate .*; what waits: 2"):
        asked.answer(1)
    asked.registry.versions[9] = ModelVersion(
        "trips", 9, "", at(1), 1, None, "", {}, pd.DataFrame(), (), {}, at(1), at(1)
    )
    with pytest.raises(AnswerRefused, match="nothing was decided about version 9"):
        asked.answer(9)


def test_an_answer_about_a_version_that_does_not_exist_says_so(asked: World):
    with pytest.raises(ModelNotFound, match="trips has no version 77"):
        asked.answer(77)


def test_a_comparison_with_a_champion_that_is_gone_cannot_be_approved(asked: World):
    asked.decided(3, 11, "waiting", champion=1)
    asked.answer(3)
    with pytest.raises(AnswerRefused, match="compared with version 1, and version 3 serves now"):
        asked.answer(2)
    assert asked.answer(2, approve=False).decision == "refused"


def test_the_first_model_can_wait_too(world: World):
    world.decided(1, 5, "waiting")
    world.answer(1)
    assert world.champion(at(5)) == 1


def test_of_two_people_at_once_one_wins(asked: World):
    ready = threading.Barrier(2)
    outcomes: dict[str, str] = {}

    def person(name: str, approve: bool) -> None:
        ready.wait()
        try:
            outcomes[name] = asked.answer(2, approve=approve, by=name).decision
        except AnswerRefused:
            outcomes[name] = "too late"

    people = [
        threading.Thread(target=person, args=("ada", True)),
        threading.Thread(target=person, args=("eve", False)),
    ]
    for each in people:
        each.start()
    for each in people:
        each.join()
    decisions = history(asked.lake, asked.use_case)
    assert sorted(outcomes.values()) in (["promoted", "too late"], ["refused", "too late"])
    assert len(decisions) == 3
    assert latest_decision(decisions, 2).decision == outcomes[decisions[-1].decided_by]


def test_asking_a_second_time_about_a_version_that_waits_adds_nothing(asked: World):
    again = Promotion(2, at(10), at(20), "gate", "waiting", "why")
    assert not record(asked.lake, asked.use_case, again, COMMIT)
