"""The newest partitions of a history that has ended, as the Plots of Dagster's UI ask for them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import PartitionLoadingContext
from dagster._core.definitions.temporal_context import TemporalContext

from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.assets.partitions import cutoffs_of, partitions_of
from ml_platform_dagster.resources.paging import end_pages_with_calendar
from tests.trips_use_case import write_folder

NOW = PartitionLoadingContext(
    temporal_context=TemporalContext(
        effective_dt=datetime(2026, 6, 15, 12, tzinfo=UTC), last_event_id=None
    ),
    dynamic_partitions_store=None,
)


@pytest.fixture(autouse=True)
def paged() -> None:
    end_pages_with_calendar()


def declared(root: Path, calendar: str) -> UseCase:
    use_case = write_folder(root, "binary")
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("cadence: daily, start: 2024-03-01", calendar))
    return load_use_case(use_case.folder)


def newest(definition: dg.TimeWindowPartitionsDefinition, count: int, cursor: Any = None) -> Any:
    return definition.get_paginated_partition_keys(
        context=NOW, limit=count, ascending=False, cursor=cursor
    )


@pytest.mark.parametrize(
    ("calendar", "last"),
    [
        (
            "cadence: hourly, start: 2024-03-01, end: 2024-03-31",
            ["2024-03-30-23:00", "2024-03-30-22:00"],
        ),
        ("cadence: daily, start: 2024-03-01, end: 2024-03-31", ["2024-03-30", "2024-03-29"]),
        ("cadence: weekly, start: 2024-03-03, end: 2024-03-31", ["2024-03-24", "2024-03-17"]),
        ("cadence: monthly, start: 2024-01-01, end: 2024-04-01", ["2024-03-01", "2024-02-01"]),
    ],
)
def test_the_newest_partitions_end_with_the_history(
    tmp_path: Path, calendar: str, last: list[str]
) -> None:
    use_case = declared(tmp_path, calendar)
    assert newest(partitions_of(use_case), 2).results == last
    # A cutoff has begun when the window before it is over; none begins at the end.
    assert newest(cutoffs_of(use_case), 2).results == last


def test_older_pages_continue_where_one_ends(tmp_path: Path) -> None:
    partitions = partitions_of(
        declared(tmp_path, "cadence: daily, start: 2024-03-01, end: 2024-03-31")
    )
    page = newest(partitions, 28)
    assert (page.results[0], page.results[-1]) == ("2024-03-30", "2024-03-03")
    assert newest(partitions, 28, page.cursor).results == ["2024-03-02", "2024-03-01"]


def test_a_history_that_continues_is_paged_as_before(tmp_path: Path) -> None:
    partitions = partitions_of(declared(tmp_path, "cadence: daily, start: 2026-01-01"))
    assert newest(partitions, 2).results == ["2026-06-14", "2026-06-13"]
    until = partitions_of(declared(tmp_path, "cadence: daily, start: 2026-01-01, end: 2027-01-01"))
    assert newest(until, 2).results == ["2026-06-14", "2026-06-13"]


def test_dagster_itself_still_counts_from_now(tmp_path: Path) -> None:
    partitions = partitions_of(
        declared(tmp_path, "cadence: daily, start: 2024-03-01, end: 2024-03-31")
    )
    dagsters: Any = type(partitions).get_paginated_partition_keys
    found = dagsters.__wrapped__(partitions, NOW, 2, False)
    said = "Dagster ends pages with the calendar now: delete resources/paging.py"
    assert found.results == ["2026-06-14", "2026-06-13"], said
