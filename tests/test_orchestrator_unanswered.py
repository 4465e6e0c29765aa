"""Which failed runs still stand: the rule that alerts, retries and status share."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ml_platform.orchestrator import (
    ATTEMPT_OF,
    Backfill,
    Run,
    RunStatus,
    sentence,
    unanswered,
    unanswered_backfills,
)
from ml_platform.orchestrator.records import PARTITION, RANGE_END, RANGE_START, WILL_RETRY

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)


def run(
    hour: int,
    tables: str = "trips/labels",
    first: int = 5,
    last: int = 9,
    status: RunStatus = RunStatus.failure,
    **tags: str,
) -> Run:
    """A run of days of March, created some hours after the first one began."""
    days = {RANGE_START: f"2024-03-{first:02d}", RANGE_END: f"2024-03-{last:02d}"}
    return Run(
        id=f"run {hour}",
        status=status,
        tags={**days, **tags},
        tables=tuple(tables.split(", ")) if tables else (),
        created_at=BEGIN + timedelta(hours=hour),
        ended_at=None,
        job="__ASSET_JOB" if tables else "trips_rollback",
    )


def attempt(hour: int, status: RunStatus = RunStatus.failure) -> Run:
    return replace(run(hour, status=status), tags={ATTEMPT_OF: "trips_landing/key"})


def success(hour: int, tables: str = "trips/labels", first: int = 5, last: int = 9) -> Run:
    return run(hour, tables, first, last, RunStatus.success)


def stands(failed: Run, *succeeded: Run) -> bool:
    return unanswered("trips", [failed], succeeded) == [failed]


@pytest.mark.parametrize(
    ("succeeded", "is_standing"),
    [
        ([], True),
        ([success(2)], False),
        ([success(0)], True),
        ([success(1)], True),
        ([success(2, first=4, last=10)], False),
        ([success(2, first=6)], True),
        ([success(2, last=8)], True),
        ([success(2, first=5, last=7), success(3, first=8, last=9)], True),
        ([success(2, "trips/labels, trips/pace_features")], False),
        ([success(2, "trips/pace_features")], True),
        ([success(2, "parcels/labels")], True),
    ],
)
def test_a_run_stands_until_a_later_one_has_computed_all_of_it(
    succeeded: Sequence[Run], is_standing: bool
) -> None:
    assert stands(run(1), *succeeded) == is_standing


def test_all_tables_of_the_use_case_are_wanted_and_those_of_others_are_not() -> None:
    failed = run(1, "trips/labels, trips/pace_features, parcels/labels")
    assert stands(failed, success(2))
    assert not stands(failed, success(2, "trips/labels, trips/pace_features"))


def test_a_training_is_answered_by_any_later_one() -> None:
    failed = run(1, "trips/model, trips/promotions")
    assert not stands(failed, success(2, "trips/model", first=20, last=20))
    assert stands(failed, success(2, "trips/promotions"))


def test_a_single_partition_is_a_range_of_one() -> None:
    one = replace(run(1), tags={PARTITION: "2024-03-05"})
    assert not stands(one, success(2, first=5, last=5))
    assert not stands(run(1, first=5, last=5), replace(success(2), tags={PARTITION: "2024-03-05"}))
    assert stands(one, success(2, first=6))
    without = replace(run(1), tags={})
    assert stands(without, success(2))
    assert not stands(without, replace(success(2), tags={}))


def test_a_rollback_is_answered_by_a_later_one() -> None:
    failed = run(1, "")
    assert stands(failed)
    assert not stands(failed, success(2, ""))
    assert unanswered("trips_too", [failed], []) == []


def test_what_ended_otherwise_or_is_tried_again_does_not_stand() -> None:
    assert not stands(run(1, status=RunStatus.canceled))
    assert not stands(run(1, **{WILL_RETRY: "true"}))
    assert stands(run(1, **{WILL_RETRY: "false"}))
    assert unanswered("parcels", [run(1)], []) == []


def test_of_attempts_the_last_one_speaks_for_all() -> None:
    first, second = attempt(1), attempt(2)
    assert unanswered("trips", [second, run(0), first], []) == [run(0), second]
    assert unanswered("trips", [first, attempt(2, RunStatus.canceled)], []) == []
    assert unanswered("trips", [first], [attempt(2, RunStatus.success)]) == []


def backfill(hour: int, tables: str = "trips/labels", status: str = "FAILED") -> Backfill:
    created = BEGIN + timedelta(hours=hour)
    return Backfill(f"backfill {hour}", status, {}, tuple(tables.split(", ")), created, None)


def test_a_backfill_stands_until_a_later_one_of_its_tables_has_succeeded() -> None:
    failed = backfill(1)

    def are_standing(*succeeded: Backfill) -> bool:
        return unanswered_backfills("trips", [failed], succeeded) == [failed]

    assert are_standing()
    assert are_standing(backfill(0), backfill(1), backfill(2, "trips/trips"))
    assert not are_standing(backfill(2, "trips/labels, trips/trips"))
    assert unanswered_backfills("parcels", [failed], []) == []


def test_errors_of_others_keep_their_class() -> None:
    assert sentence("ml_platform.errors.LakeError: no lake\n") == "no lake"
    assert sentence("trips/labels: ml_platform.errors.LakeError: no") == "trips/labels: no"
    assert sentence("ValueError: no number") == "ValueError: no number"
