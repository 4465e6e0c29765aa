"""Requests and refusals are kept as long as a use case says, and labels stay what they are."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_platform.errors import SpecErrors
from ml_platform.features import compute_labels
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.upkeep import keep_up, plan_upkeep
from tests import test_upkeep_retention
from tests.trips_use_case import COMMIT, at, days, land, settings, trips

NOW = at(20, 12).astimezone(UTC)
LAST_KEPT = 14
SAID_BY_ID, SAID_BY_KEY = "asked-6-1", ("trip", 7002)


def declare(root: Path, retention: str) -> UseCase:
    return test_upkeep_retention.declare(root, f"{retention}\nserving: {{log: {{}}}}")


@dataclass(frozen=True)
class Logged:
    """Requests of a fortnight that the service has written down, a file for each two days."""

    lake: Lake
    use_case: UseCase

    def landing(self, source: str) -> Path:
        return Path(self.lake.settings.landing_uri) / self.use_case.name / source

    def write(self, source: str, name: str, rows: list[dict[str, Any]], day: int) -> None:
        file = self.landing(source) / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        columns = dict.fromkeys(self.use_case.sources[source].columns)
        file.write_text("".join(f"{json.dumps({**columns, **row})}\n" for row in rows))
        os.utime(file, (at(day).timestamp(), at(day).timestamp()))

    def ingest(self, source: str) -> None:
        report = ingest(self.lake, self.use_case, source, days(1, 20), COMMIT)
        assert not report.refused
        assert not sum(counts.quarantined for counts in report.windows.values())

    def files(self, source: str) -> list[str]:
        return sorted(file.stem for file in self.landing(source).iterdir())

    def asked(self, query: str) -> list[tuple[Any, ...]]:
        with self.lake.cursor(self.use_case.timezone) as cursor:
            return cursor.execute(query).fetchall()

    def kept(self, source: str) -> dict[int, int]:
        """Rows by day."""
        time = "answered_at" if source == "refusals" else "event_time"
        return dict(
            self.asked(
                f"SELECT day({time}), count(*) FROM lake.trips.{source} GROUP BY 1 ORDER BY 1"
            )
        )

    def labels(self) -> list[tuple[Any, ...]]:
        return self.asked(
            "SELECT trip, event_time, label, known_at FROM lake.trips.labels ORDER BY 1"
        )


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Logged]:
    case = declare(tmp_path, "{requests: {rows: 6d}, refusals: {rows: 6d}}")
    made = Logged(Lake(settings(tmp_path)), case)
    land(made.lake, case, trips(1, 20, 4), days(1, 20))
    for day in range(5, 19, 2):
        both = (day, day + 1)
        made.write("requests", f"requests-{day}", [r for d in both for r in requests(d)], day + 2)
        made.write("refusals", f"refusals-{day}", [refusal(d) for d in both], day + 2)
    said = [
        {"prediction_id": SAID_BY_ID, "event_time": moment(6, 1)},
        {SAID_BY_KEY[0]: SAID_BY_KEY[1], "event_time": moment(7, 2)},
    ]
    made.write("feedback", "said", [{**feedback(n), **each} for n, each in enumerate(said)], 9)
    for source in ("requests", "refusals", "feedback"):
        made.ingest(source)
    compute_labels(made.lake, case, days(1, 20), COMMIT)
    yield made
    made.lake.close()


def moment(day: int, number: int) -> str:
    return at(day, 8 + number).isoformat()


def requests(day: int) -> list[dict[str, Any]]:
    return [
        {
            "prediction_id": f"asked-{day}-{number}", "request_id": f"{day}-{number}",
            "event_time": moment(day, number), "answered_at": moment(day, number),
            "mode": "live", "model_version": 1, "by_key": True, "trip": day * 1000 + number,
        }
        for number in range(3)
    ]  # fmt: skip


def refusal(day: int) -> dict[str, Any]:
    return {"refusal_id": f"no-{day}", "error": "RequestRefused", "answered_at": moment(day, 0)}


def feedback(number: int) -> dict[str, Any]:
    known = at(9).isoformat()
    return {
        "feedback_id": f"said-{number}", "label": True, "kind": "label", "origin": "caller",
        "known_at": known, "received_at": known,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("retention", "problem"),
    [
        ("{requests: {snapshots: 30d}}", "rows of 'requests' name no snapshots; give `rows` alone"),
        ("{refusals: {rows: 2d}}", "'2d' is shorter than schedules.horizon (2d) and"),
        ("{feedback: {rows: 90d}}", "no table to be kept for a while 'feedback'"),
    ],
)
def test_what_cannot_be_kept_for_a_while_is_refused(tmp_path, retention, problem) -> None:
    with pytest.raises(SpecErrors) as refused:
        declare(tmp_path, retention)
    assert problem in str(refused.value)


def test_reports_on_live_traffic_may_be_kept_for_a_while(tmp_path: Path) -> None:
    retention = (
        "{live_drift_report: {rows: 90d, snapshots: 9d}, live_performance_report: {rows: 90d}}"
    )
    assert declare(tmp_path, retention).retention.keys() == {
        "live_drift_report", "live_performance_report",
    }  # fmt: skip


def test_requests_of_before_are_deleted_with_their_files_and_labels_stay(logged: Logged) -> None:
    labels = logged.labels()
    by_feedback = {trip for trip, *_ in labels} & {6001, 7002}
    assert by_feedback == {6001, 7002}
    files = {source: logged.files(source) for source in ("requests", "refusals")}

    planned = plan_upkeep(logged.lake, [logged.use_case], NOW)
    assert logged.kept("requests") == dict.fromkeys(range(5, 19), 3)
    assert {source: logged.files(source) for source in files} == files

    done = keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    assert done.problems == ()
    assert (done.dropped, done.old_logs) == (planned.dropped, planned.old_logs)
    # What feedback is about stays, since labels are made from both.
    whole = dict.fromkeys(range(LAST_KEPT, 19), 3)
    assert logged.kept("requests") == {6: 1, 7: 1, **whole}
    assert logged.kept("refusals") == dict.fromkeys(range(LAST_KEPT, 19), 1)
    # The file of the 13th has rows of the 14th, too.
    assert logged.files("requests") == ["requests-13", "requests-15", "requests-17"]
    assert logged.files("refusals") == ["refusals-13", "refusals-15", "refusals-17"]
    assert logged.files("feedback") == ["said"]

    compute_labels(logged.lake, logged.use_case, days(1, 20), COMMIT)
    assert logged.labels() == labels
    again = keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    assert (again.dropped, again.old_logs) == ((), ())


def test_what_is_gone_is_not_asked_for_again(logged: Logged) -> None:
    before = snapshots_of_windows(logged)
    keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    logged.ingest("requests")
    assert logged.kept("requests")[6] == 1
    assert snapshots_of_windows(logged).items() <= before.items()


def snapshots_of_windows(logged: Logged) -> dict[datetime, int]:
    return dict(
        logged.asked(
            "SELECT window_start, max(snapshot) FROM lake.trips.ingestions "
            "WHERE source = 'requests' GROUP BY 1"
        )
    )


def test_a_file_that_is_not_ingested_stays(logged: Logged) -> None:
    logged.write("requests", "late", requests(4), 5)
    logged.write("requests", "requests-5", [*requests(5), *requests(6), *requests(3)], 6)
    keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    assert {"late", "requests-5"} <= set(logged.files("requests"))
    logged.ingest("requests")
    assert {4: 3, 3: 3}.items() <= logged.kept("requests").items()
    keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    assert not {"late", "requests-5"} & set(logged.files("requests"))
    assert not {3, 4} & logged.kept("requests").keys()


def test_a_file_of_the_last_day_stays_whatever_its_rows_are_about(logged: Logged) -> None:
    logged.write("requests", "asked-today", requests(4), 20)
    logged.ingest("requests")
    keep_up(logged.lake, [logged.use_case], COMMIT, NOW)
    assert "asked-today" in logged.files("requests")
    keep_up(logged.lake, [logged.use_case], COMMIT, NOW + timedelta(days=1))
    assert "asked-today" not in logged.files("requests")
