"""The landing sensor of a small use case, evaluated on a real lake."""

import gzip
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from ml_platform.backfill.upkeep import Circumstances, catch_up
from ml_platform.settings import Settings
from ml_platform.sources import arrivals, ingest
from ml_platform.spec.joint_runs import joint_runs
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.logged import REFUSED
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform_dagster.resources import RANGE_END, RANGE_START, LakeResource
from ml_platform_dagster.sensors.landing import build_landing
from tests import trips_use_case as trips

pytestmark = pytest.mark.slow

NOW = datetime(2024, 6, 1, tzinfo=UTC)
HEADER = b"trip,started_at,city,distance,delay\n"


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "0")
    return trips.write_folder(tmp_path / "use_cases", "binary")


def folder() -> Path:
    there = Path(Settings().landing_uri) / "trips"
    there.mkdir(parents=True, exist_ok=True)
    return there


def land(first: int, last: int, seed: int = 0) -> None:
    rows = trips.trips(first, last, seed=seed)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder() / f"{day}.csv", index=False)


def take_in(use_case: UseCase, first: int, last: int) -> None:
    """Ingest, as the run does that the sensor asks for."""
    lake = Lake(Settings())
    ingest(lake, use_case, "trips", trips.days(first, last), trips.COMMIT)
    lake.close()


def evaluate(
    use_case: UseCase, cursor: str | None = None, instance: dg.DagsterInstance | None = None
) -> dg.SensorResult:
    (sensor,) = build_landing(use_case, Settings())
    with dg.build_sensor_context(
        instance=instance or dg.DagsterInstance.ephemeral(),
        cursor=cursor,
        sensor_name=sensor.name,
        resources={"lake": LakeResource()},
    ) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def ranges(result: dg.SensorResult) -> list[tuple[str, str]]:
    return [(r.tags[RANGE_START], r.tags[RANGE_END]) for r in result.run_requests or []]


def keys(result: dg.SensorResult) -> set[str | None]:
    return {request.run_key for request in result.run_requests or []}


def left(use_case: UseCase, now: datetime) -> dict[str, str]:
    """Files that a look at some moment leaves alone, and why."""
    lake = Lake(Settings())
    found = arrivals(lake, use_case, "trips", trips.COMMIT, now)
    lake.close()
    return dict(found.left)


def write(name: str, content: bytes, seconds_ago: float) -> None:
    (folder() / name).write_bytes(content)
    at = NOW.timestamp() - seconds_ago
    os.utime(folder() / name, (at, at))


def test_nothing_has_landed_yet(use_case: UseCase) -> None:
    assert evaluate(use_case).run_requests == []


def test_each_unbroken_run_of_new_days_becomes_one_run(use_case: UseCase) -> None:
    land(2, 4)
    land(8, 8)
    result = evaluate(use_case)
    assert ranges(result) == [("2024-03-02", "2024-03-04"), ("2024-03-08", "2024-03-08")]
    tables = {key.path[-1] for key in (result.run_requests or [])[0].asset_selection or []}
    assert tables == {"trips"}


def test_what_was_asked_for_is_not_asked_for_again(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case)
    assert evaluate(use_case, first.cursor).run_requests == []


def test_a_lost_cursor_asks_again_only_for_what_was_not_ingested(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case)
    # The run has not come to it yet: Dagster drops a run key that it knows.
    assert keys(evaluate(use_case)) == keys(first)
    take_in(use_case, 2, 4)
    assert evaluate(use_case).run_requests == []


def test_a_corrected_day_is_asked_for_again_under_another_run_key(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case)
    take_in(use_case, 2, 4)
    land(3, 3, seed=1)
    again = evaluate(use_case, first.cursor)
    assert ranges(again) == [("2024-03-03", "2024-03-03")]
    assert keys(first).isdisjoint(keys(again))


def test_a_correction_that_is_taken_back_is_asked_for_under_a_third_run_key(
    use_case: UseCase,
) -> None:
    seen: set[str | None] = set()
    for seed in (0, 1, 0, 1):
        land(3, 3, seed=seed)
        asked = keys(evaluate(use_case))
        assert len(asked) == 1
        assert asked.isdisjoint(seen)
        seen |= asked
        take_in(use_case, 3, 3)


def test_a_file_that_is_touched_or_delivered_again_is_no_news(use_case: UseCase) -> None:
    land(2, 4)
    first = evaluate(use_case)
    take_in(use_case, 2, 4)
    os.utime(folder() / "2024-03-03.csv", (1_800_000_000, 1_800_000_000))
    again = (folder() / "2024-03-04.csv").read_bytes()
    write("2024-03-04.csv", again, 0)
    assert evaluate(use_case, first.cursor).run_requests == []


def test_a_touched_file_does_not_overrule_the_one_that_corrected_it(use_case: UseCase) -> None:
    write("a.csv", HEADER + b"1,2024-03-02T12:00:00Z,Albany,1,5\n", 3000)
    write("b.csv", HEADER + b"1,2024-03-02T12:00:00Z,Boston,1,5\n", 2000)
    take_in(use_case, 2, 2)
    write("a.csv", HEADER + b"1,2024-03-02T12:00:00Z,Albany,1,5\n", 1000)
    take_in(use_case, 2, 2)
    lake = Lake(Settings())
    with lake.cursor() as cursor:
        assert cursor.execute("SELECT city FROM lake.trips.trips").fetchall() == [("Boston",)]
    lake.close()


def test_a_day_that_a_file_has_no_rows_of_any_more_is_asked_for_too(use_case: UseCase) -> None:
    row = "{},2024-03-0{}T12:00:00Z,Albany,1,5\n"
    write("a.csv", HEADER + (row.format(1, 2) + row.format(2, 5)).encode(), 3000)
    first = evaluate(use_case)
    assert ranges(first) == [("2024-03-02", "2024-03-02"), ("2024-03-05", "2024-03-05")]
    take_in(use_case, 2, 5)
    write("a.csv", HEADER + row.format(1, 3).encode(), 2000)
    again = evaluate(use_case, first.cursor)
    assert ranges(again) == [("2024-03-02", "2024-03-03"), ("2024-03-05", "2024-03-05")]
    take_in(use_case, 2, 5)
    assert evaluate(use_case).run_requests == []


def test_days_that_were_ingested_by_hand_are_not_news(use_case: UseCase) -> None:
    land(2, 4)
    take_in(use_case, 2, 4)
    assert evaluate(use_case).run_requests == []


def test_days_after_the_end_of_a_history_are_never_asked_for(use_case: UseCase) -> None:
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(
        spec.read_text()
        .replace("start: 2024-03-01,", "start: 2024-03-01, end: 2024-03-04,")
        .replace("holdout: 5d", "holdout: 2d")
    )
    land(2, 6)
    assert ranges(evaluate(load_use_case(use_case.folder))) == [("2024-03-02", "2024-03-03")]


def test_a_file_is_left_until_it_is_quiet(
    use_case: UseCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "5")
    write("a.csv", HEADER + b"1,2024-03-02,Albany,1,5\n", 3)
    assert left(use_case, NOW) == {"a.csv": "was written 3 s ago"}
    assert left(use_case, NOW + timedelta(seconds=3)) == {}


# Without the time: the name of a test may not change from process to process.
ZIPPED = gzip.compress(HEADER * 9, mtime=0)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.csv", HEADER + b"1,2024-03-02,Alb", "ends in the midst of a line"),
        ("a.csv", b"", "is empty so far"),
        ("a.csv.gz", ZIPPED[:-9], "ends in the midst of its zipped content"),
        ("a.parquet", b"PAR1 and some pages", "has no Parquet footer yet"),
    ],
)  # fmt: skip
def test_a_file_whose_end_is_missing_is_left_and_refused_in_the_end(
    use_case: UseCase, name: str, content: bytes, why: str
) -> None:
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace('"*.csv"', f'"*{name[1:]}"'))
    case = load_use_case(use_case.folder)
    write(name, content, 60)
    assert left(case, NOW) == {name: why}
    # Ten minutes later nobody is writing it any more: it is taken as it is, or refused by name.
    assert left(case, NOW + timedelta(minutes=10)) == {}
    lake = Lake(Settings())
    report = ingest(lake, case, "trips", trips.days(2, 2), trips.COMMIT)
    lake.close()
    quarantined = sum(counts.quarantined for counts in report.windows.values())
    assert [error.file for error in report.refused] == [name] or quarantined == 1


def test_a_run_of_the_sensor_leaves_half_a_file_that_a_person_would_get(use_case: UseCase) -> None:
    land(2, 2)
    write("half.csv", HEADER + b"1,2024-03-02T12:00:00Z,Albany,1,5\n2,2024-0", 60)
    lake = Lake(Settings())
    (patient,) = ingest(
        lake, use_case, "trips", trips.days(2, 2), trips.COMMIT, now=NOW
    ).windows.values()
    (at_once,) = ingest(lake, use_case, "trips", trips.days(2, 2), trips.COMMIT).windows.values()
    lake.close()
    assert (patient.landed, at_once.landed) == (40, 42)


def test_what_the_service_writes_waits_for_more_and_is_never_forgotten(use_case: UseCase) -> None:
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text() + "serving: {log: {}}\nschedules: {horizon: 2000d}\n")
    case = load_use_case(use_case.folder)
    (folder() / "refusals").mkdir()

    def refuse(name: str, refusals: int, minutes_ago: float, day: int = 2) -> None:
        noon = f"2024-03-0{day}T12:00:00Z"
        row = dict.fromkeys(REFUSED) | {"error": "RequestRefused", "answered_at": noon}
        rows = [row | {"refusal_id": f"{name} {number}"} for number in range(refusals)]
        file = folder() / "refusals" / f"{name}.jsonl"
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        at = datetime.now(UTC).timestamp() - 60 * minutes_ago
        os.utime(file, (at, at))

    def ingest_day() -> None:
        lake = Lake(Settings())
        ingest(lake, case, "refusals", trips.days(2, 2), trips.COMMIT)
        lake.close()

    refuse("first", 100, 30)
    land(2, 2)
    # The log and the other sources are runs of their own.
    tables = [[k.path[-1] for k in r.asset_selection] for r in evaluate(case).run_requests]
    assert tables == [["trips"], ["refusals"]]
    ingest_day()
    take_in(case, 2, 2)
    refuse("second", 5, 20)
    found = evaluate(case)
    assert not found.run_requests
    assert found.skip_reason.skip_message == "1 partitions of what the service writes wait"
    # The cursor does not say that there is nothing new: an hour after it landed a file is due.
    assert "refusals" not in json.loads(found.cursor)
    refuse("late", 1, 61)
    assert ranges(evaluate(case, found.cursor)) == [("2024-03-02", "2024-03-02")]
    ingest_day()
    refuse("third", 4, 1)
    assert not evaluate(case).run_requests
    # Nor does the catch-up ask for it; a person gets it at once.
    lake = Lake(Settings())
    for hours, caught_up in ((0, False), (1, True)):
        now = datetime.now(UTC) + timedelta(hours=hours)
        chunks = catch_up(lake, case, now, Circumstances())
        assert any("refusals" in chunk.tables for chunk in chunks) == caught_up
    windows = ingest(lake, case, "refusals", trips.days(2, 2), trips.COMMIT).windows
    assert [counts.ingested for counts in windows.values()] == [110]
    lake.close()
    refuse("fourth", 4, 1)
    refuse("fifth", 8, 1)
    (request,) = evaluate(case).run_requests
    assert ranges(evaluate(case)) == [("2024-03-02", "2024-03-02")]
    # What lands while the run that was asked for has not ended does not make another one.
    selected = frozenset(request.asset_selection)
    with dg.DagsterInstance.ephemeral() as instance:
        create_run_for_test(
            instance, tags=request.tags, asset_selection=selected,
            status=dg.DagsterRunStatus.STARTED,
        )  # fmt: skip
        refuse("sixth", 50, 1)
        assert not evaluate(case, instance=instance).run_requests


def test_windows_are_grouped_where_they_touch(use_case: UseCase) -> None:
    calendar = use_case.calendar
    days = [calendar.window(f"2024-03-{day:02d}") for day in (14, 9, 10, 11)]
    assert [calendar.keys(window_range) for window_range in calendar.ranges(days)] == [
        ("2024-03-09", "2024-03-11"),
        ("2024-03-14", "2024-03-14"),
    ]


def test_tables_whose_ranges_overlap_share_a_run(use_case: UseCase) -> None:
    calendar = use_case.calendar

    def days(*numbers: int) -> list[Window]:
        return [calendar.window(f"2024-03-{day:02d}") for day in numbers]

    (first, second) = joint_runs(
        calendar, {"labels": days(3, 4), "pace": days(5, 6, 7), "predictions": days(7, 8, 20)}
    )
    assert {table: calendar.keys(window_range) for table, window_range in first.ranges.items()} == {
        "labels": ("2024-03-03", "2024-03-04"),
        "pace": ("2024-03-05", "2024-03-07"),
        "predictions": ("2024-03-07", "2024-03-08"),
    }
    assert calendar.keys(first.covering_range) == ("2024-03-03", "2024-03-08")
    assert list(second.ranges) == ["predictions"]


@pytest.mark.exhaustive
def test_what_is_known_of_landing_stays_a_few_files(use_case: UseCase) -> None:
    lake = Lake(Settings())
    for number in range(70):
        write(f"{number}.csv", HEADER + b"%d,2024-03-02T12:00:00Z,Albany,1,5\n" % number, 60)
        arrivals(lake, use_case, "trips", trips.COMMIT, NOW)
    with lake.cursor() as cursor:
        files = cursor.execute(
            "SELECT count(*) FROM ducklake_list_files('lake', 'landings', schema => 'trips')"
        ).fetchone()
        snapshots = cursor.execute(
            "SELECT count(DISTINCT snapshot_id) FROM ducklake_table_insertions("
            f"'lake', 'trips', 'landings', 0, {lake.snapshot(cursor)})"
        ).fetchone()
    lake.close()
    assert files is not None
    assert files[0] < 10
    # When each was noted is still known.
    assert snapshots == (70,)
