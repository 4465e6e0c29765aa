from datetime import date
from pathlib import Path

import pytest

from ml_platform.errors import PlatformError
from ml_platform.monitoring import Cause
from ml_platform.monitoring.verdicts import drift_passed, performance_passed
from ml_platform.replay import (
    Policy,
    Seen,
    Trigger,
    default_policies,
    retraining_due,
    scheduled_cutoffs,
)
from ml_platform.spec.duration import Duration
from ml_platform.spec.modelling import Retrain
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from tests import trips_use_case as trips


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


def due(
    use_case: UseCase, passed: str, last_cutoff: int | None = None, cause: Cause = "drift"
) -> Trigger | None:
    """What is decided at the end of the last day of `passed`; last_cutoff: a day of March."""
    found = verdicts(use_case, passed)
    newest = found[-1][0] if found else None
    cutoff = None if last_cutoff is None else trips.at(last_cutoff)
    return retraining_due(use_case, Seen(newest, cutoff, {cause: found}))


@pytest.mark.parametrize(
    ("passed", "is_due"),
    [
        ("..xxx", True),
        ("xxx..", False),  # over again
        ("x.x.x", True),
        ("...xx", False),
        ("xxx..........xx", False),  # long ago
        ("", False),
    ],
)
def test_failures_have_to_be_sustained(use_case: UseCase, passed: str, is_due: bool) -> None:
    assert (due(use_case, passed) is not None) == is_due


def test_a_challenger_that_could_not_be_judged_answers_nothing(use_case: UseCase) -> None:
    # Failing up to a cutoff; from then on too few labels to judge anything, for the cooldown.
    found = verdicts(use_case, "..xxx")
    newest, cutoff = use_case.calendar.window("2024-03-20"), trips.at(6)
    judged = Seen(newest, cutoff, {"drift": found})
    assert retraining_due(use_case, judged) is None
    unjudged = Seen(newest, cutoff, {"drift": found}, answered=trips.at(1))
    trigger = retraining_due(use_case, unjudged)
    assert trigger is not None
    assert trigger.failed == ("2024-03-03", "2024-03-04", "2024-03-05")
    resting = Seen(use_case.calendar.window("2024-03-10"), cutoff, {"drift": found}, trips.at(1))
    assert retraining_due(use_case, resting) is None


def test_the_cutoff_is_the_end_of_the_newest_window_with_predictions(use_case: UseCase) -> None:
    late = Seen(use_case.calendar.window("2024-03-06"), None, {"drift": verdicts(use_case, "xxxx")})
    trigger = retraining_due(use_case, late)
    assert trigger is not None
    assert use_case.calendar.key(trigger.cutoff) == "2024-03-07"
    assert trigger.failed == ("2024-03-01", "2024-03-02", "2024-03-03", "2024-03-04")
    assert trigger.reason == f"drift failed in 4 of 4 partitions: {', '.join(trigger.failed)}"


def test_a_cooldown_counts_from_the_last_cutoff(use_case: UseCase) -> None:
    assert due(use_case, "x" * 20, last_cutoff=8) is None
    assert due(use_case, "x" * 20, last_cutoff=7) is not None


def test_what_failed_before_the_last_cutoff_has_been_answered(use_case: UseCase) -> None:
    eager = use_case.retrain.model_copy(update={"cooldown": Duration(0, "d")})
    use_case = use_case.model_copy(update={"retrain": eager})
    assert due(use_case, "xxx") is not None
    assert due(use_case, "xxxx", last_cutoff=4) is None
    assert due(use_case, "xxxxx", last_cutoff=4) is None
    again = due(use_case, "xxxxxx", last_cutoff=4)
    assert again is not None
    assert again.failed == ("2024-03-04", "2024-03-05", "2024-03-06")


def test_both_causes_are_one_trigger_with_one_key(use_case: UseCase) -> None:
    both = use_case.retrain.model_copy(update={"on": ("drift", "performance")})
    use_case = use_case.model_copy(update={"retrain": both})
    found = verdicts(use_case, "..xxx")
    newest = found[-1][0]
    triggers = [
        retraining_due(use_case, Seen(newest, None, dict.fromkeys(causes, found)))
        for causes in (("drift",), ("performance",), ("drift", "performance"))
    ]
    assert [t and t.cause for t in triggers] == ["drift", "performance", "drift+performance"]
    assert len({t and t.key for t in triggers}) == 1


def test_a_cause_that_is_not_listed_never_retrains(use_case: UseCase) -> None:
    assert due(use_case, "xxxxx", cause="performance") is None


def test_nothing_is_trained_after_the_end_of_a_history(use_case: UseCase) -> None:
    closed = use_case.partitions.model_copy(update={"end": date(2024, 3, 6)})
    assert due(use_case, "..xx") is None
    assert due(use_case, ".xxx") is not None
    assert due(use_case.model_copy(update={"partitions": closed}), "..xxx") is None


def test_a_schedule_names_the_windows_in_which_it_fires(use_case: UseCase) -> None:
    calendar = use_case.calendar
    spring = Window(calendar.window("2024-03-01").start, calendar.window("2024-06-01").start)
    keys = [calendar.key(window) for window in scheduled_cutoffs(use_case, spring)]
    assert keys == ["2024-03-01", "2024-04-01", "2024-05-01"]


def test_only_the_columns_and_metrics_that_are_named_count(use_case: UseCase) -> None:
    drifted = {"probability": False, "city": True, "distance": True}
    assert drift_passed(use_case, drifted) is False
    assert drift_passed(use_case, drifted, ("probability",)) is True
    assert drift_passed(use_case, drifted, ("label",)) is None
    kept = {"roc_auc": True, "log_loss": False}
    assert performance_passed(kept) is False
    assert performance_passed(kept, ("roc_auc",)) is True
    assert performance_passed({}, ("roc_auc",)) is None


def test_policies_are_read_as_people_write_them(use_case: UseCase) -> None:
    every = Policy.parse("drift+every:30d", use_case)
    assert (every.causes, every.every, every.scheduled) == (("drift",), Duration(30, "d"), False)
    calendar = use_case.calendar
    spring = Window(calendar.window("2024-03-01").start, calendar.window("2024-06-01").start)
    keys = [calendar.key(window) for window, _, _ in every.cutoffs(use_case, spring)]
    assert keys == ["2024-03-31", "2024-04-30", "2024-05-30"]
    assert default_policies(use_case) == ("never", "schedule", "drift")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("drfit", "no policy 'drfit'. Did you mean 'drift'?"),
        ("never+drift", "its parts exclude each other"),
        ("every:soon", "'soon' is not a valid duration; write 90m, 3h, 7d, 2w or 1mo"),
        ("every:0d", "'0d' should be longer than nothing"),
        ("performance", "trips bounds no metric; set monitoring.performance"),
    ],
)
def test_a_policy_that_says_nothing_is_an_error(use_case: UseCase, text: str, said: str) -> None:
    with pytest.raises(PlatformError) as error:
        Policy.parse(text, use_case)
    assert str(error.value) == f"--policy {text}: {said}"
