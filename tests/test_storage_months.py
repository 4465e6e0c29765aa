"""Windows of a month share a few files, however often they are replaced one by one."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.settings import Settings
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Commit, Lake, Table, Written, replace_windows
from ml_platform.storage.changes import Range, changed_since, read_changes
from ml_platform.storage.months import MOST_FILES

HOURS = Calendar.of(Cadence.hourly, datetime(2024, 1, 1, tzinfo=UTC), "UTC")
COUNTS = Table("uc", "counts", {"seen_at": "TIMESTAMPTZ", "sensor": "BIGINT", "people": "BIGINT"},
               order=("seen_at", "sensor"))  # fmt: skip
COMMIT = Commit("run", "code")
START = HOURS.start.replace(tzinfo=None)
WHOLE = Range(START, START + timedelta(days=365))


@pytest.fixture(
    params=[
        pytest.param(False, id="plain"),
        pytest.param(True, id="encrypted", marks=pytest.mark.slow),
    ]
)
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(Settings(data=tmp_path, encrypted=request.param))
    yield lake
    lake.close()


def hours(first: int, last: int) -> Window:
    return Window(HOURS.start + timedelta(hours=first), HOURS.start + timedelta(hours=last))


def write(lake: Lake, first: int, last: int, people: int, table: Table = COUNTS) -> Written:
    """Make each of the hours `[first, last)` hold what three sensors counted."""
    named = [column for column in table.columns if column in {"filename", "snapshot_id"}]
    query = (
        f"SELECT TIMESTAMPTZ '{HOURS.start}' + to_hours(h::INTEGER) AS seen_at, s AS sensor, "
        f"{people} + s AS people{''.join(f', s AS {column}' for column in named)} "
        f"FROM range({first}, {last}) r(h), range(3) t(s)"
    )
    return replace(lake, query, hours(first, last), table)


def empty(lake: Lake, first: int, last: int) -> Written:
    query = f"SELECT TIMESTAMPTZ '{HOURS.start}' AS seen_at, 0 AS sensor, 0 AS people WHERE false"
    return replace(lake, query, hours(first, last))


def replace(lake: Lake, query: str, window_range: Window, table: Table = COUNTS) -> Written:
    with lake.cursor() as cursor:
        return replace_windows(
            lake, cursor, table, query,
            time="seen_at", calendar=HOURS, window_range=window_range, commit=COMMIT,
        )  # fmt: skip


def files(lake: Lake, snapshot: int | None = None) -> list[str]:
    at = "" if snapshot is None else f", snapshot_version => {snapshot}"
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"SELECT data_file FROM ducklake_list_files('lake', 'counts', schema => 'uc'{at})"
        ).fetchall()
    return [path for (path,) in rows]


def files_by_month(lake: Lake) -> dict[int, set[str]]:
    with lake.cursor() as cursor:
        rows = cursor.execute(
            "SELECT month(window_start), list(DISTINCT filename) FROM lake.uc.counts GROUP BY 1"
        ).fetchall()
    return {month: set(names) for month, names in rows}


def read(lake: Lake, snapshot: int | None = None) -> dict[int, list[int]]:
    """What the sensors counted, by hour since the start."""
    found: dict[int, list[int]] = {}
    with lake.cursor() as cursor:
        table = lake.relation(cursor, "uc", "counts", snapshot)
        for hour, people in cursor.execute(
            f"SELECT date_diff('hour', TIMESTAMP '2024-01-01', window_start), people FROM {table} "
            "ORDER BY seen_at, sensor"
        ).fetchall():
            found.setdefault(hour, []).append(people)
    return found


def changes(lake: Lake, wanted: Range = WHOLE) -> dict[int, tuple[int, bool]]:
    with lake.cursor() as cursor:
        found = read_changes(lake, cursor, "uc", {"counts": wanted}).get("counts", {})
    return {(at - START) // timedelta(hours=1): (c.snapshot, c.has_rows) for at, c in found.items()}


def test_the_hours_of_a_month_share_a_file(lake: Lake) -> None:
    write(lake, 0, 60 * 24, 10)
    assert len(files(lake)) == 2


def test_a_month_stays_a_few_files_however_often_single_hours_are_replaced(lake: Lake) -> None:
    write(lake, 0, 40 * 24, 10)
    expected = {hour: [10, 11, 12] for hour in range(40 * 24)}
    states, since = [], {hour: at for hour, (at, _) in changes(lake).items()}
    assert since.keys() == expected.keys()
    for turn, hour in enumerate([5, 700, 5, 300, 750, 6, 5, 301, 6]):
        written = write(lake, hour, hour + 1, 100 * turn)
        expected[hour] = [100 * turn + sensor for sensor in range(3)]
        since[hour] = written.snapshot
        states.append((written.snapshot, dict(expected)))
        assert max(map(len, files_by_month(lake).values())) <= MOST_FILES
        # Hours that are only written again, because their file is, have not changed.
        assert changes(lake) == {hour: (at, True) for hour, at in since.items()}
    for snapshot, state in states:
        assert read(lake, snapshot) == state


def test_hours_that_arrive_one_by_one_stay_a_few_files(lake: Lake) -> None:
    for hour in range(12):
        write(lake, hour, hour + 1, hour)
        assert len(files(lake)) <= MOST_FILES
    assert read(lake) == {hour: [hour, hour + 1, hour + 2] for hour in range(12)}


def test_hours_far_apart_are_replaced_without_touching_the_months_between(lake: Lake) -> None:
    write(lake, 0, 100 * 24, 10)
    before = files_by_month(lake)
    for turn in range(4):
        write(lake, 0, 1, 20 + turn)
        write(lake, 99 * 24, 99 * 24 + 1, 20 + turn)
    after = files_by_month(lake)
    assert {month: after[month] == before[month] for month in after} == {
        1: False, 2: True, 3: True, 4: False,
    }  # fmt: skip


def test_a_window_that_loses_all_rows_is_noted_with_the_snapshot(lake: Lake) -> None:
    first = write(lake, 0, 4, 10)
    emptied = empty(lake, 1, 3)
    assert changes(lake) == {
        0: (first.snapshot, True), 1: (emptied.snapshot, False),
        2: (emptied.snapshot, False), 3: (first.snapshot, True),
    }  # fmt: skip
    again = write(lake, 1, 2, 30)
    assert changes(lake)[1] == (again.snapshot, True)


@pytest.mark.slow
def test_windows_are_emptied_very_often_and_noted_in_a_few_files(lake: Lake) -> None:
    for turn in range(20):
        write(lake, turn % 3, turn % 3 + 1, turn)
        empty(lake, turn % 3, turn % 3 + 1)
    with lake.cursor() as cursor:
        (found,) = cursor.execute(
            "SELECT count(*) FROM ducklake_list_files('lake', 'emptied_windows', schema => 'uc')"
        ).fetchall()
    assert found[0] <= 17
    assert {hour: has_rows for hour, (_, has_rows) in changes(lake).items()} == dict.fromkeys(
        range(3), False
    )


def test_only_the_windows_of_a_range_are_looked_at(lake: Lake) -> None:
    written = write(lake, 0, 50, 10)
    wanted = Range(START + timedelta(hours=10), START + timedelta(hours=12))
    assert changes(lake, wanted) == dict.fromkeys([10, 11], (written.snapshot, True))


def test_what_was_only_written_again_has_not_changed_since(lake: Lake) -> None:
    before = write(lake, 0, 24, 10).snapshot
    for turn in range(MOST_FILES):
        write(lake, 3, 4, 50 + turn)

    def changed(first: int, last: int, after: int) -> bool:
        wanted = Range(START + timedelta(hours=first), START + timedelta(hours=last))
        with lake.cursor() as cursor:
            where = wanted.holds("window_start")
            return changed_since(cursor, "uc", "counts", wanted, where, after)

    assert changed(3, 4, before)
    assert not changed(4, 24, before)
    emptied = empty(lake, 9, 10).snapshot
    assert changed(4, 24, before)
    assert not changed(4, 24, emptied)


@pytest.mark.parametrize("column", ["filename", "snapshot_id"])
def test_columns_may_have_the_names_that_ducklake_gives_its_own(lake: Lake, column: str) -> None:
    table = Table("uc", "counts", {**COUNTS.columns, column: "VARCHAR"}, COUNTS.order)
    first = write(lake, 0, 24, 10, table)
    for turn in range(5):
        last = write(lake, 3, 4, 50 + turn, table)
    assert len(files(lake)) <= MOST_FILES
    assert changes(lake)[3] == (last.snapshot, True)
    assert changes(lake)[4] == (first.snapshot, True)
