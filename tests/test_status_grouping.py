"""Alerts of one cause are one matter: a rule that is broken in thousands of partitions."""

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from ml_platform.alerts import Condition
from ml_platform.cli import health_page
from ml_platform.monitoring.quarantined import Quarantined, cause_of
from ml_platform.spec.use_case import UseCase
from ml_platform.status import Health, OpenAlert, grouped, status_document
from ml_platform.status.dagster import Dagster
from tests import trips_use_case as trips

BEGIN = datetime(2024, 3, 1, tzinfo=UTC)
RULE = "Quarantine: trips breaks the rule: distance > 0"


def alert(day: int, cause: str = RULE, notified: bool = True) -> OpenAlert:
    since = BEGIN + timedelta(days=day)
    key = f"{since:%Y-%m-%d}"
    condition = Condition(
        use_case="trips", kind="quarantine", title=f"Quarantine in trips: {key}",
        what=f"What broke in {key}.", since=since, since_text=key, done="nothing", link="http://d",
        subject=f"trips/{key}" if cause else "alone", cause=cause, partition=key if cause else "",
    )  # fmt: skip
    at = since + timedelta(days=1)
    return OpenAlert(condition, noted_at=at, notified_at=at if notified else None)


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path, "binary")


def health(use_case: UseCase, *alerts: OpenAlert) -> Health:
    return Health(
        use_case=use_case, at=BEGIN, tables=(), champion=None, drift=None, performance=None,
        quarantine=(), approvals=(), alerts=alerts,
    )  # fmt: skip


def page(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    said = io.StringIO()
    monkeypatch.setattr(health_page, "console", lambda: Console(file=said, width=200))
    return said


def test_alerts_of_one_cause_are_one_line_with_range_and_count() -> None:
    alerts = [alert(day) for day in range(2929)]
    (group,) = grouped(alerts[::-1])
    assert group.title == (
        "Quarantine: trips breaks the rule: distance > 0 in 2929 partitions of trips, "
        "2024-03-01 to 2032-03-07"
    )
    assert group.newest is alerts[-1]


def test_what_names_no_cause_or_another_one_stands_apart() -> None:
    other = "Quarantine: trips distance is missing"
    groups = grouped([alert(0), alert(1, ""), alert(2, other), alert(3)])
    assert [len(group.alerts) for group in groups] == [2, 1, 1]
    assert groups[1].title == "Quarantine in trips: 2024-03-02"


def test_status_shows_a_group_in_one_line_and_how_many_nobody_was_notified_of(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page(monkeypatch)
    found = health(use_case, *(alert(day, notified=day < 5) for day in range(40)))
    health_page.show_health([found], Dagster("http://d"), {}, ["trips"])
    lines = [line for line in said.getvalue().splitlines() if "distance > 0" in line]
    assert len(lines) == 1
    assert "in 40 partitions of trips, 2024-03-01 to 2024-04-09" in lines[0]
    assert "35 not yet" in lines[0]


def test_alerts_lists_the_newest_of_a_group_in_full(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = page(monkeypatch)
    health_page.show_alerts(use_case, [alert(day) for day in range(40)], [])
    assert said.getvalue().count("What broke in") == 1
    assert "What broke in 2024-04-09." in said.getvalue()


def test_the_document_counts_all_and_names_a_bounded_number(use_case: UseCase) -> None:
    found = health(use_case, *(alert(day) for day in range(500)))
    document = status_document([found], Dagster("http://d"), {}, ["trips"])["use_cases"]["trips"]
    (group,) = document["alert_groups"]
    assert (document["alert_count"], len(document["alerts"])) == (500, 100)
    assert (group["count"], group["notified"], len(group["newest"])) == (500, 500, 10)
    assert (group["first_partition"], group["last_partition"]) == ("2024-03-01", "2025-07-13")
    assert group["newest"][0] == "quarantine/trips/2025-07-13"


def test_a_cause_leaves_out_the_values_of_single_rows() -> None:
    reasons = {
        "distance: 'far' is not a DOUBLE": 3,
        "distance: 'it''s near' is not a DOUBLE": 2,
        "breaks the rule: city in ('a', 'b')": 4,
    }
    window = trips.days(1, 1)
    assert Quarantined("trips", window, 9, 10, reasons).cause == (
        "distance: a value is not a DOUBLE"
    )
    assert cause_of("breaks the rule: city in ('a', 'b')") == "breaks the rule: city in ('a', 'b')"
    assert cause_of("duplicate key (trip): row 17 came first") == (
        cause_of("duplicate key (trip): row 4 came first")
    )
