"""What there is to report, derived from the rows of a real lake."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from ml_platform.alerts import Channels, Condition, FailedRun, find_conditions, notify
from ml_platform.alerts.freshness import due_at, read_freshness
from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import drift_table, performance_table
from ml_platform.registry import NOT_JUDGED, Promotion, record
from ml_platform.registry.promotions import Decision
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake, Table, replace_windows
from tests import trips_use_case as trips

pytestmark = pytest.mark.slow


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return declared(tmp_path, "monitoring: {reference_rows: 200, performance: {min: 0.7}}")


def declared(root: Path, monitoring: str, partitions: str = "start: 2024-03-01") -> UseCase:
    spec = trips.write_folder(root / "use_cases", "binary").folder / "use_case.yaml"
    text = spec.read_text().replace("monitoring: {reference_rows: 200}", monitoring)
    spec.write_text(text.replace("start: 2024-03-01", partitions))
    return load_use_case(spec.parent)


def write(
    lake: Lake, use_case: UseCase, table: Table, day: int, rows: list[dict[str, object]]
) -> None:
    with lake.cursor(use_case.timezone) as cursor:
        names = [{name: row.get(name) for name in table.columns} for row in rows]
        cursor.register("given", pa.Table.from_pylist(names))
        columns = ", ".join(f"{name}::{kind} AS {name}" for name, kind in table.columns.items())
        replace_windows(
            lake, cursor, table, f"SELECT {columns} FROM given",
            time="window_at", calendar=use_case.calendar, window_range=trips.days(day, day),
            commit=trips.COMMIT,
        )  # fmt: skip
        cursor.unregister("given")


def report_drift(lake: Lake, use_case: UseCase, day: int, scores: Sequence[float]) -> None:
    rows: list[dict[str, object]] = [
        {
            "window_at": trips.at(day), "column_name": f"column_{index}", "kind": "feature",
            "method": "wasserstein", "score": score, "threshold": 0.3, "drifted": score > 0.3,
            "status": "judged", "reference_version": 6, "snapshot": 1,
        }
        for index, score in enumerate(scores)
    ]  # fmt: skip
    write(lake, use_case, drift_table(use_case), day, rows)


def report_performance(lake: Lake, use_case: UseCase, day: int, value: float) -> None:
    row: dict[str, object] = {
        "window_at": trips.at(day), "revision": "current", "metric": "roc_auc", "value": value,
        "status": "ok", "passed": value >= 0.7, "rows": 50, "labelled": 40, "coverage": 0.8,
        "model_versions": [6], "labels_known_by": trips.at(day + 1), "snapshot": 1,
    }  # fmt: skip
    write(lake, use_case, performance_table(use_case), day, [row])


def decide(
    lake: Lake, use_case: UseCase, version: int, day: int, decision: Decision, by: str = "gate"
) -> None:
    decided = datetime(2024, 4, version, 12, tzinfo=UTC) + timedelta(hours=by != "gate")
    promotion = Promotion(version, trips.at(day), decided, by, decision, "roc_auc 0.80, was 0.75")
    record(lake, use_case, promotion, trips.COMMIT)


def find(lake: Lake, use_case: UseCase, kind: str, now: datetime | None = None) -> list[Condition]:
    found = find_conditions(lake, use_case, now or trips.at(10))
    return [condition for condition in found.conditions if condition.kind == kind]


def test_an_empty_lake_has_nothing_to_report(lake: Lake, use_case: UseCase) -> None:
    assert find_conditions(lake, use_case, datetime(2030, 1, 1, tzinfo=UTC)).conditions == ()


def test_drift_says_what_how_bad_since_when_and_where_to_look(
    lake: Lake, use_case: UseCase
) -> None:
    report_drift(lake, use_case, 7, [0.1, 0.1, 0.2])
    report_drift(lake, use_case, 8, [0.1, 0.4, 0.5])
    report_drift(lake, use_case, 9, [0.1, 0.6, 0.5])
    (drift,) = find(lake, use_case, "drift")
    assert drift.title == "Drift in trips: 2 of 3 columns, 67%"
    assert drift.body.splitlines() == [
        "In partition 2024-03-09 2 of 3 columns have drifted from what version 6 was trained on: "
        "67%, the limit is 30%.",
        "Farthest: column_1 0.60 (limit 0.3), column_2 0.50 (limit 0.3).",
        "Since: partition 2024-03-08, which begins Fri 08 Mar 2024 00:00 America/New_York; "
        "2 partitions in a row",
        "Done: nothing; `retrain.on` of the use case does not name drift.",
    ]
    assert drift.link.splitlines() == [
        "http://127.0.0.1:3000/assets/trips/drift_report?view=partitions&partition=2024-03-09",
        "http://127.0.0.1:3001/trips/drift/2024-03-09",
    ]


def test_drift_ends_with_the_newest_partition_that_passes(lake: Lake, use_case: UseCase) -> None:
    report_drift(lake, use_case, 8, [0.1, 0.4, 0.5])
    report_drift(lake, use_case, 9, [0.1, 0.1, 0.1])
    assert find(lake, use_case, "drift") == []
    notes = find_conditions(lake, use_case, trips.at(10)).notes
    assert notes["drift"].startswith(
        "0 of 3 columns have drifted in partition 2024-03-09: 0%, the limit is 30%."
    )


def test_poor_performance_says_which_challenger_came_of_it(lake: Lake, use_case: UseCase) -> None:
    report_performance(lake, use_case, 8, 0.62)
    decide(lake, use_case, 7, 9, "refused")
    (poor,) = find(lake, use_case, "performance")
    assert poor.title == "Poor performance in trips: roc_auc 0.6200, should be at least 0.7"
    assert poor.severity == "critical"
    assert poor.done == "version 7, trained at cutoff 2024-03-09, was refused."


def test_a_version_that_waits_is_a_condition_until_a_person_answers(
    lake: Lake, use_case: UseCase
) -> None:
    decide(lake, use_case, 7, 5, "waiting")
    (wanted,) = find(lake, use_case, "approval")
    assert (wanted.key, wanted.title) == (
        "approval/7",
        "Version 7 of trips waits for your approval",
    )
    assert "`ml-platform approve trips 7 --reason …`" in wanted.done
    decide(lake, use_case, 7, 5, "promoted", by="ada")
    assert find(lake, use_case, "approval") == []
    notes = find_conditions(lake, use_case, trips.at(10)).notes
    assert notes["approval/7"] == "Version 7 was promoted by ada: roc_auc 0.80, was 0.75."


@pytest.mark.parametrize(
    ("decision", "kind", "title", "done"),
    [
        ("promoted", "promotion", "Version 3 of trips was promoted",
         "version 3 serves from partition 2024-03-05 on."),
        ("refused", "refused", "Version 3 of trips was refused",
         "the champion stays; the figures of version 3 are kept."),
        ("rolled back", "rollback", "trips was rolled back to version 3",
         "version 3 serves from partition 2024-03-05 on; what the replaced version wrote from "
         "there on is recomputed."),
    ],
)  # fmt: skip
def test_every_decision_is_an_event(
    lake: Lake, use_case: UseCase, decision: Decision, kind: str, title: str, done: str
) -> None:
    decide(lake, use_case, 3, 5, decision)
    (event,) = find(lake, use_case, kind)
    assert (event.lasts, event.title, event.done) == (False, title, done)
    assert event.what == "Decided by gate: roc_auc 0.80, was 0.75."


def test_a_failed_run_stands_with_its_error(lake: Lake, use_case: UseCase) -> None:
    run = FailedRun("abc", "labels (2024-03-05)", "x" * 600, trips.at(6), tried=3)
    (event,) = find_conditions(lake, use_case, trips.at(10), [run]).conditions
    assert event.lasts
    assert event.link == "http://127.0.0.1:3000/runs/abc"
    assert event.what == "x" * 500 + " …"
    assert event.done.startswith(
        "tried 3 times; look at the run, and run it again from there. It is over once a later one"
    )


def land_broken(settings: Settings, day: int, broken: int) -> None:
    folder = Path(settings.landing_uri) / "trips"
    folder.mkdir(parents=True, exist_ok=True)
    rows = trips.trips(day, day).astype({"distance": object})
    rows.loc[: broken - 1, "distance"] = "far"
    rows.to_csv(folder / f"{day}.csv", index=False)


def test_quarantine_above_the_share_is_reported_by_source_and_partition(
    lake: Lake, settings: Settings, use_case: UseCase
) -> None:
    land_broken(settings, 4, broken=2)
    land_broken(settings, 5, broken=3)
    ingest(lake, use_case, "trips", trips.days(4, 5), trips.COMMIT)
    (condition,) = find(lake, use_case, "quarantine", trips.at(6))
    assert condition.key == "quarantine/trips/2024-03-05"
    assert condition.title == "Quarantine in trips: 7.5% of trips in 2024-03-05"
    assert condition.what.splitlines()[0] == (
        "3 of 40 rows of trips in partition 2024-03-05 break their contract: 7.5%, "
        "the limit is 5.0%."
    )


def test_one_broken_row_of_a_few_is_reported_to_nobody(
    lake: Lake, settings: Settings, use_case: UseCase
) -> None:
    for day, broken in ((4, 1), (5, 2)):
        land_broken(settings, day, broken)
        file = Path(settings.landing_uri) / "trips" / f"{day}.csv"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:11]))
    ingest(lake, use_case, "trips", trips.days(4, 5), trips.COMMIT)
    (condition,) = find(lake, use_case, "quarantine", trips.at(6))
    assert condition.title == "Quarantine in trips: 20.0% of trips in 2024-03-05"


def test_a_corrected_file_ends_it_and_superseded_rows_do_not_count(
    lake: Lake, settings: Settings, use_case: UseCase
) -> None:
    land_broken(settings, 5, broken=3)
    ingest(lake, use_case, "trips", trips.days(5, 5), trips.COMMIT)
    land_broken(settings, 5, broken=0)
    corrected = Path(settings.landing_uri) / "trips" / "5 again.csv"
    trips.trips(5, 5, seed=1).to_csv(corrected, index=False)
    ingest(lake, use_case, "trips", trips.days(5, 5), trips.COMMIT)
    assert find(lake, use_case, "quarantine", trips.at(6)) == []


def late(lake: Lake, use_case: UseCase, now: datetime) -> dict[str, list[str]]:
    return {
        table.table: [use_case.calendar.key(window) for window in table.late]
        for table in read_freshness(lake, use_case, now)
        if table.late
    }


def test_a_daily_partition_is_late_from_noon_of_the_next_day_on(
    lake: Lake, use_case: UseCase
) -> None:
    trips.land(lake, use_case, trips.trips(1, 4), trips.days(1, 4))
    assert late(lake, use_case, trips.at(6, 12) - timedelta(minutes=1)) == {}
    assert late(lake, use_case, trips.at(6, 12)) == {"trips": ["2024-03-05"]}
    (condition,) = find(lake, use_case, "freshness", trips.at(7, 13))
    assert condition.title == "trips of trips is 2 partitions late"
    assert condition.what == (
        "Partition 2024-03-05 of trips was due by Wed 06 Mar 2024 12:00 America/New_York; "
        "the newest is 2024-03-04. 2 partitions lack by now."
    )
    assert condition.done.startswith("nothing can be ingested until files land: look for ")


def test_a_use_case_that_logs_is_not_late_before_anything_has_landed(
    lake: Lake, tmp_path: Path
) -> None:
    logging = declared(tmp_path, "serving: {log: {}}")
    assert late(lake, logging, trips.at(9)) == {}
    trips.land(lake, logging, trips.trips(1, 4), trips.days(1, 4))
    # Nobody has to ask for a prediction every day.
    assert late(lake, logging, trips.at(6, 12)) == {"trips": ["2024-03-05"]}


def in_an_hour() -> datetime:
    return datetime.now(UTC) + timedelta(minutes=61)


def test_what_is_computed_is_late_only_where_its_input_has_been_there_for_an_hour(
    lake: Lake, use_case: UseCase
) -> None:
    land_broken(lake.settings, 4, broken=0)
    ingest(lake, use_case, "trips", trips.days(4, 4), trips.COMMIT)
    compute_features(lake, use_case, "pace", trips.days(4, 4), trips.COMMIT)
    compute_labels(lake, use_case, trips.days(4, 4), trips.COMMIT)
    land_broken(lake.settings, 5, broken=0)
    ingest(lake, use_case, "trips", trips.days(5, 5), trips.COMMIT)
    assert set(late(lake, use_case, datetime.now(UTC))) == {"trips"}
    found = late(lake, use_case, in_an_hour())
    assert (found["trips"][0], found["pace_features"]) == ("2024-03-06", ["2024-03-05"])
    assert found["labels"] == ["2024-03-05"]


def test_labels_and_performance_are_due_a_horizon_later(use_case: UseCase) -> None:
    day = use_case.calendar.window("2024-03-05")
    due = {table: due_at(use_case, table, day) for table in ("trips", "predictions", "labels")}
    assert due == {
        "trips": trips.at(6, 12), "predictions": trips.at(6, 12), "labels": trips.at(7, 12)
    }  # fmt: skip


def test_predictions_are_late_once_there_has_been_a_champion_for_an_hour(
    lake: Lake, use_case: UseCase
) -> None:
    trips.land(lake, use_case, trips.trips(1, 5), trips.days(1, 5))
    assert set(late(lake, use_case, in_an_hour())) == {"trips"}
    decide(lake, use_case, 1, 4, "promoted")
    found = late(lake, use_case, in_an_hour())
    assert found["predictions"] == ["2024-03-04", "2024-03-05"]
    assert set(found) == {"trips", "predictions"}


def test_a_use_case_may_say_how_late_is_late(lake: Lake, tmp_path: Path) -> None:
    patient = declared(tmp_path, "monitoring: {freshness: 3d}")
    trips.land(lake, patient, trips.trips(1, 4), trips.days(1, 4))
    assert late(lake, patient, trips.at(8, 23)) == {}
    assert late(lake, patient, trips.at(9)) == {"trips": ["2024-03-05"]}


def test_a_history_that_is_over_is_never_late(lake: Lake, tmp_path: Path) -> None:
    over = declared(tmp_path, "", "start: 2024-03-01, end: 2024-03-08")
    trips.land(lake, over, trips.trips(1, 4), trips.days(1, 4))
    assert late(lake, over, trips.at(7, 23)) == {"trips": ["2024-03-05", "2024-03-06"]}
    assert late(lake, over, trips.at(9)) == {}


def report_nothing(lake: Lake, use_case: UseCase, day: int) -> None:
    row: dict[str, object] = {
        "window_at": trips.at(day), "revision": "current", "metric": "roc_auc", "value": None,
        "status": "too few labels", "passed": None, "rows": 50, "labelled": 3, "coverage": 0.06,
        "model_versions": [6], "labels_known_by": trips.at(day + 1), "snapshot": 1,
    }  # fmt: skip
    write(lake, use_case, performance_table(use_case), day, [row])


def test_partitions_that_cannot_be_judged_are_named_and_are_no_recovery(
    lake: Lake, use_case: UseCase
) -> None:
    report_performance(lake, use_case, 4, 0.6)
    for day in (5, 6):
        report_nothing(lake, use_case, day)
    (condition,) = find(lake, use_case, "performance")
    assert condition.since == trips.at(4)
    assert (
        "Not judged since: 2 partitions, 2024-03-05 to 2024-03-06 (too few labels): that is not a "
        "recovery."
    ) in condition.what
    report_performance(lake, use_case, 6, 0.8)
    assert find(lake, use_case, "performance") == []


def test_a_failing_partition_that_cannot_be_judged_any_more_is_no_all_clear(
    lake: Lake, use_case: UseCase
) -> None:
    def states() -> list[str]:
        notified = notify(
            lake, use_case, Channels((), ()), lambda: find_conditions(lake, use_case, trips.at(10)),
            trips.at(10), trips.COMMIT,
        )  # fmt: skip
        return [entry.state for entry in notified.entries if entry.kind == "performance"]

    report_performance(lake, use_case, 4, 0.8)
    report_performance(lake, use_case, 5, 0.6)
    assert states() == ["raised"]
    report_nothing(lake, use_case, 5)
    assert states() == []
    report_performance(lake, use_case, 6, 0.8)
    assert states() == ["cleared"]


def test_a_challenger_that_could_not_be_judged_is_not_said_to_be_refused(
    lake: Lake, use_case: UseCase
) -> None:
    report_performance(lake, use_case, 4, 0.6)
    reason = f"{NOT_JUDGED}5 labelled rows"
    decided = datetime(2024, 4, 7, tzinfo=UTC)
    record(
        lake, use_case, Promotion(7, trips.at(6), decided, "gate", "refused", reason), trips.COMMIT
    )
    (condition,) = find(lake, use_case, "performance")
    assert condition.done == "version 7, trained at cutoff 2024-03-06, was not judged."
    (refused,) = find(lake, use_case, "refused")
    assert refused.title == "Version 7 of trips was not judged"
