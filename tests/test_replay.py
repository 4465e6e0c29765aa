from pathlib import Path

import pytest
import trips_use_case as trips

from ml_platform.replay import retraining_due, scheduled_cutoffs
from ml_platform.spec.modelling import Retrain
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    case = trips.write_folder(tmp_path, "binary")
    retrain = Retrain(on=("drift", "schedule"), sustained="3 of 5", cooldown="14d")
    model = case.model.model_copy(update={"schedule": "0 5 1 * *"})
    return case.model_copy(update={"retrain": retrain, "model": model})


def verdicts(use_case: UseCase, passed: str) -> list[tuple[Window, bool]]:
    """One letter a day from the 1st on: `.` passed, `x` failed."""
    return [
        (use_case.calendar.window(f"2024-03-{day:02d}"), letter == ".")
        for day, letter in enumerate(passed, start=1)
    ]


@pytest.mark.parametrize(
    ("passed", "due"),
    [
        ("..xxx", True),
        ("xxx..", False),  # over again
        ("x.x.x", True),
        ("...xx", False),
        ("xxx..........xx", False),  # long ago
        ("", False),
    ],
)
def test_failures_have_to_be_sustained(use_case: UseCase, passed: str, due: bool) -> None:
    trigger = retraining_due(use_case, "drift", verdicts(use_case, passed), None)
    assert (trigger is not None) == due


def test_the_cutoff_is_the_window_after_the_newest_failure(use_case: UseCase) -> None:
    trigger = retraining_due(use_case, "drift", verdicts(use_case, "xxxx"), None)
    assert trigger is not None
    assert use_case.calendar.key(trigger.cutoff) == "2024-03-05"
    assert "2024-03-04" in trigger.reason


def test_a_cooldown_keeps_challengers_apart(use_case: UseCase) -> None:
    failing = verdicts(use_case, "x" * 20)
    assert retraining_due(use_case, "drift", failing, trips.at(8)) is None
    assert retraining_due(use_case, "drift", failing, trips.at(7)) is not None


def test_a_cause_that_is_not_listed_never_retrains(use_case: UseCase) -> None:
    assert retraining_due(use_case, "performance", verdicts(use_case, "xxxxx"), None) is None


def test_a_schedule_names_the_windows_in_which_it_fires(use_case: UseCase) -> None:
    calendar = use_case.calendar
    spring = Window(calendar.window("2024-03-01").start, calendar.window("2024-06-01").start)
    keys = [calendar.key(window) for window in scheduled_cutoffs(use_case, spring)]
    assert keys == ["2024-03-01", "2024-04-01", "2024-05-01"]
