import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

import pytest

from ml_platform.errors import (
    CalendarChanged,
    DuplicateRows,
    InputsChanged,
    LakeError,
    TableNotFound,
)
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Read,
    Replacement,
    Table,
    Written,
    replace_together,
    replace_windows,
)
from ml_platform.storage.calendars import StoredCalendar, stored_calendars
from ml_platform.storage.lake import _Transaction
from ml_platform.storage.tables import ensure_table

DAYS = Calendar.of(Cadence.daily, date(2013, 1, 1), "America/New_York")
TABLE = Table(
    "uc",
    "flights",
    {"flight": "BIGINT", "left_at": "TIMESTAMPTZ", "delay": "DOUBLE", "made_at": "TIMESTAMPTZ"},
    order=("left_at", "flight"),
    stamps=("made_at",),
)
COMMIT = Commit("run-7", "abc123", "ingest flights", {"partition": "2013-01-01"})
Row = tuple[int, str, float | None]


@pytest.fixture
def lake(shared_lake: Lake) -> Iterator[Lake]:
    # Attaching costs more than most of these tests, emptying the lake does not.
    yield shared_lake
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.uc CASCADE")


def day(key: str, until: str | None = None) -> Window:
    return Window(DAYS.window(key).start, DAYS.window(until or key).end)


def rows_sql(rows: Sequence[Row], made_at: str = "2020-01-01") -> str:
    values = ", ".join(
        f"({f}::BIGINT, TIMESTAMPTZ '{at}', {'NULL' if d is None else d}::DOUBLE)"
        for f, at, d in rows
    )
    empty = "(NULL::BIGINT, NULL::TIMESTAMPTZ, NULL::DOUBLE)"
    return (
        f"SELECT *, TIMESTAMPTZ '{made_at}' AS made_at FROM (VALUES {values or empty}) "
        f"v(flight, left_at, delay) {'' if rows else 'WHERE false'}"
    )


def write(
    lake: Lake, window_range: Window, rows: Sequence[Row], table: Table = TABLE, **options: str
) -> Written:
    with lake.cursor("America/New_York") as cursor:
        return replace_windows(
            lake,
            cursor,
            table,
            options.get("query") or rows_sql(rows, **options),
            time="left_at",
            calendar=DAYS,
            window_range=window_range,
            commit=COMMIT,
        )


def read(lake: Lake, columns: str = "flight, delay", snapshot: int | None = None) -> list[tuple]:
    with lake.cursor("America/New_York") as cursor:
        table = lake.relation(cursor, "uc", "flights", snapshot)
        return cursor.execute(f"SELECT {columns} FROM {table} ORDER BY left_at, flight").fetchall()


def files(lake: Lake) -> set[str]:
    with lake.cursor() as cursor:
        found = cursor.execute("FROM ducklake_list_files('lake', 'flights', schema => 'uc')")
        return {row[0] for row in found.fetchall()}


def newest(lake: Lake) -> int:
    with lake.cursor() as cursor:
        return lake.snapshot(cursor)


NEW_YEAR: list[Row] = [(1, "2013-01-01 08:00", 5.0), (2, "2013-01-01 09:00", None)]


def test_a_written_window_is_read_back_and_counted(lake):
    written = write(lake, day("2013-01-01", "2013-01-02"), NEW_YEAR)
    assert read(lake) == [(1, 5.0), (2, None)]
    assert written.rows == {day("2013-01-01"): 2, day("2013-01-02"): 0}
    assert written.changed == {day("2013-01-01")}
    assert written.snapshot == newest(lake)


def test_replacing_leaves_the_windows_outside_the_range_alone(lake):
    write(lake, day("2013-01-01", "2013-01-02"), [*NEW_YEAR, (3, "2013-01-02 00:00", 1.0)])
    write(lake, day("2013-01-01"), [(4, "2013-01-01 23:59", 2.0)])
    assert read(lake) == [(4, 2.0), (3, 1.0)]


def test_the_same_rows_again_write_no_file_and_no_snapshot(lake):
    first = write(lake, day("2013-01-01"), NEW_YEAR)
    before = files(lake)
    second = write(lake, day("2013-01-01"), NEW_YEAR[::-1], made_at="2021-01-01")
    assert (second.rows, second.changed) == (first.rows, frozenset())
    assert second.snapshot == first.snapshot == newest(lake)
    assert files(lake) == before


def test_in_a_range_only_the_windows_that_differ_are_rewritten(lake):
    keys = [f"2013-01-0{n}" for n in range(1, 8)]
    rows: list[Row] = [(n, f"{key} 08:00", 0.0) for n, key in enumerate(keys)]
    write(lake, day(keys[0], keys[-1]), rows)
    first = newest(lake)
    # Two windows change with an unchanged one between them, one goes, one row is NULL now.
    rows[1] = (1, f"{keys[1]} 08:00", 9.0)
    rows[3] = (3, f"{keys[3]} 08:00", None)
    del rows[5]
    written = write(lake, day(keys[0], keys[-1]), rows)
    assert written.changed == {day(keys[1]), day(keys[3]), day(keys[5])}
    assert read(lake) == [(0, 0.0), (1, 9.0), (2, 0.0), (3, None), (4, 0.0), (6, 0.0)]
    since = [at for (at,) in read(lake, "_snapshot")]
    assert since == [first, first + 1, first, first + 1, first, first]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param([(1, 1.0), (2, 2.0)], [(1, 2.0), (2, 1.0)], id="two rows swap a value"),
        pytest.param([(1, None)], [(1, 0.0)], id="NULL becomes 0"),
        pytest.param([(1, 0.0), (2, None)], [(1, None), (2, 0.0)], id="NULL moves"),
        pytest.param([(1, 1.0)], [(1, 1.0), (2, 1.0)], id="a row more"),
        pytest.param([(1, 1.0), (2, 1.0)], [(1, 1.0)], id="a row less"),
        pytest.param([(1, 1.0)], [(1, 1.0000000000000002)], id="the last bit"),
        pytest.param([(1, 1.0)], [], id="none left"),
    ],
)
def test_every_difference_is_written(lake, before, after):
    at = "2013-01-01 08:00"
    write(lake, day("2013-01-01"), [(flight, at, delay) for flight, delay in before])
    written = write(lake, day("2013-01-01"), [(flight, at, delay) for flight, delay in after])
    assert written.changed == {day("2013-01-01")}
    assert read(lake) == after


COMPUTED = Table("uc", "flights", TABLE.columns, TABLE.order, TABLE.stamps, tolerance=1e-9)


@pytest.mark.parametrize("delay", [0.1 + 0.2, 0.3 * (1 + 1e-10), -0.0])
def test_the_last_bits_of_a_computed_float_make_no_new_row(lake, delay):
    at = "2013-01-01 08:00"
    before = 0.3 if delay else 0.0
    first = write(lake, day("2013-01-01"), [(1, at, before), (2, at, None)], table=COMPUTED)
    again = write(lake, day("2013-01-01"), [(1, at, delay), (2, at, None)], table=COMPUTED)
    assert (again.changed, again.snapshot) == (frozenset(), first.snapshot)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("0.3", "0.3000001"),
        ("0.0", "1e-300"),
        ("1.0", "NULL"),
        ("NULL", "1.0"),
        ("1.0", "'inf'"),
        ("'inf'", "'-inf'"),
        ("'nan'", "1.0"),
        ("1.0", "'nan'"),
    ],
)
def test_more_than_the_last_bits_of_a_computed_float_is_written(lake, before, after):
    def query(delay: str) -> str:
        return f"SELECT * REPLACE ({delay}::DOUBLE AS delay) FROM ({rows_sql(NEW_YEAR[:1])})"

    write(lake, day("2013-01-01"), [], table=COMPUTED, query=query(before))
    written = write(lake, day("2013-01-01"), [], table=COMPUTED, query=query(after))
    assert written.changed == {day("2013-01-01")}


def test_another_key_is_another_row_however_close_the_floats_are(lake):
    write(lake, day("2013-01-01"), NEW_YEAR, table=COMPUTED)
    other = [(3, at, delay) for _, at, delay in NEW_YEAR]
    assert write(lake, day("2013-01-01"), other, table=COMPUTED).changed == {day("2013-01-01")}


def test_old_snapshots_stay_as_they_were(lake):
    first = write(lake, day("2013-01-01"), NEW_YEAR)
    second = write(lake, day("2013-01-01"), [(9, "2013-01-01 10:00", 1.5)])
    assert read(lake, snapshot=first.snapshot) == [(1, 5.0), (2, None)]
    assert read(lake, snapshot=second.snapshot) == read(lake) == [(9, 1.5)]


def test_rows_are_stored_in_order(lake):
    rows = [(n, f"2013-01-01 {n:02d}:00", float(n)) for n in range(23, -1, -1)]
    write(lake, day("2013-01-01"), rows)
    (file,) = files(lake)
    with lake.cursor() as cursor:
        stored = cursor.execute("SELECT flight FROM read_parquet(?)", [file]).fetchall()
    assert stored == [(n,) for n in range(24)]


def test_a_snapshot_names_the_run_the_code_and_what_it_was_for(lake):
    written = write(lake, day("2013-01-01"), NEW_YEAR)
    with lake.cursor() as cursor:
        row = cursor.execute(
            """SELECT author, commit_message, commit_extra_info->>'$.run_id',
            commit_extra_info->>'$.code_version', commit_extra_info->>'$.partition'
            FROM lake.snapshots() WHERE snapshot_id = ?""",
            [written.snapshot],
        ).fetchone()
    assert row == ("run run-7, code abc123", "ingest flights", "run-7", "abc123", "2013-01-01")


@pytest.mark.parametrize("at", ["2012-12-31 23:59:59", "2013-01-02 00:00:00", None])
def test_a_row_outside_the_range_is_refused_and_nothing_is_written(lake, at):
    write(lake, day("2013-01-01"), NEW_YEAR)
    late = "NULL::TIMESTAMPTZ" if at is None else f"TIMESTAMPTZ '{at}'"
    query = f"{rows_sql(NEW_YEAR[:1])} UNION ALL SELECT 7, {late}, 1.0, now()"
    with pytest.raises(LakeError, match=r"uc\.flights: 1 rows have a left_at outside \[2013-01-01"):
        write(lake, day("2013-01-01"), [], query=query)
    assert read(lake) == [(1, 5.0), (2, None)]


def test_both_hours_that_the_clocks_repeat_can_be_the_last_of_a_range(lake):
    hours = Calendar.of(Cadence.hourly, date(2013, 11, 3), "America/New_York")
    windows = [hours.window_at(datetime(2013, 11, 3, utc, 30, tzinfo=UTC)) for utc in (4, 5, 6)]
    for until in windows:
        window_range = Window(windows[0].start, until.end)
        rows = [
            (n, f"{window.start.astimezone(UTC):%Y-%m-%d %H:%M:%S}+00", 1.0)
            for n, window in enumerate(windows)
            if window.start in window_range
        ]
        with lake.cursor("America/New_York") as cursor:
            written = replace_windows(
                lake,
                cursor,
                TABLE,
                rows_sql(rows),
                time="left_at",
                calendar=hours,
                window_range=window_range,
                commit=COMMIT,
            )
        assert list(written.rows.values()) == [1] * len(rows)
        assert read(lake) == [(n, 1.0) for n in range(len(rows))]


def test_two_rows_of_one_key_are_refused_by_name(lake):
    with pytest.raises(
        DuplicateRows, match=r"uc\.flights: 2 rows with left_at 2013-01-01 08.*flight 1"
    ):
        write(lake, day("2013-01-01"), [NEW_YEAR[0], (1, "2013-01-01 08:00", 6.0)])


def test_one_key_may_come_back_in_another_window_as_it_may_in_another_run(lake):
    table = Table("uc", "flights", TABLE.columns, order=("flight",), stamps=("made_at",))
    write(
        lake,
        day("2013-01-01", "2013-01-02"),
        [(1, "2013-01-01 08:00", 1.0), (1, "2013-01-02 08:00", 2.0)],
        table=table,
    )
    assert read(lake) == [(1, 1.0), (1, 2.0)]


def test_a_column_more_is_added_and_old_rows_lack_it(lake):
    write(lake, day("2013-01-01", "2013-01-02"), [*NEW_YEAR, (3, "2013-01-02 01:00", 3.0)])
    wider = Table("uc", "flights", {**TABLE.columns, "gate": "VARCHAR"}, TABLE.order)
    query = f"SELECT *, 'B' || flight AS gate FROM ({rows_sql(NEW_YEAR)})"
    written = write(lake, day("2013-01-01"), [], table=wider, query=query)
    assert written.snapshot == newest(lake)
    assert read(lake, "flight, gate") == [(1, "B1"), (2, "B2"), (3, None)]


def test_a_column_more_without_any_value_is_readable_at_the_snapshot_of_its_write(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)
    wider = Table("uc", "flights", {**TABLE.columns, "gate": "VARCHAR"}, TABLE.order)
    query = f"SELECT *, NULL::VARCHAR AS gate FROM ({rows_sql(NEW_YEAR)})"
    written = write(lake, day("2013-01-01"), [], table=wider, query=query)
    assert written.changed == frozenset()
    assert read(lake, "gate", written.snapshot) == [(None,), (None,)]


def test_a_column_of_another_type_is_refused_with_both_types(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)
    other = Table("uc", "flights", {**TABLE.columns, "delay": "INTEGER"}, TABLE.order)
    with pytest.raises(LakeError, match=r"'delay' is stored as DOUBLE, now it would be INTEGER"):
        write(lake, day("2013-01-01"), NEW_YEAR, table=other)


def test_a_type_and_a_name_may_be_spelled_otherwise(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)
    columns = {"FLIGHT": "int8", "left_at": "timestamp with time zone", "delay": "float8"}
    write(lake, day("2013-01-01"), NEW_YEAR, table=Table("uc", "flights", columns, TABLE.order))
    assert read(lake) == [(1, 5.0), (2, None)]


def test_what_was_never_written_is_not_found(lake):
    for snapshot in (None, 0, 99_999):
        with pytest.raises(TableNotFound, match=r"uc/flights first"):
            read(lake, snapshot=snapshot)
    first = newest(lake)
    write(lake, day("2013-01-01"), NEW_YEAR)
    with pytest.raises(TableNotFound, match=rf"uc\.flights at snapshot {first}; materialise"):
        read(lake, snapshot=first)


def test_a_range_before_the_first_partition_is_refused(lake):
    start = datetime(2012, 5, 1, tzinfo=UTC)
    with pytest.raises(LakeError, match="ends before the first partition, 2013-01-01"):
        write(lake, Window(start, start + timedelta(days=1)), [])


def test_a_query_that_fails_leaves_nothing_behind(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)
    before = newest(lake)
    with pytest.raises(Exception, match="Conversion Error"):
        write(
            lake,
            day("2013-01-01"),
            [],
            query=f"SELECT 'x' AS flight, * EXCLUDE (flight) FROM ({rows_sql(NEW_YEAR)})",
        )
    assert newest(lake) == before
    assert read(lake) == [(1, 5.0), (2, None)]


def test_tables_replaced_together_share_a_snapshot_or_fail_together(lake):
    good, bad = (Table("uc", name, TABLE.columns, TABLE.order) for name in ("good", "bad"))

    def both(rows: Sequence[Row], refused: Sequence[Row]) -> tuple[Written, ...]:
        with lake.cursor("America/New_York") as cursor:
            pair = [
                Replacement(good, rows_sql(rows), "left_at"),
                Replacement(bad, rows_sql(refused), "left_at"),
            ]
            return replace_together(
                lake, cursor, pair, calendar=DAYS, window_range=day("2013-01-01"), commit=COMMIT
            )

    first, second = both(NEW_YEAR[:1], NEW_YEAR[1:])
    assert first.snapshot == second.snapshot == newest(lake)
    with pytest.raises(DuplicateRows):
        both(NEW_YEAR, [NEW_YEAR[0], NEW_YEAR[0]])
    assert newest(lake) == first.snapshot


def test_a_shared_table_is_replaced_only_where_asked(lake):
    table = Table("uc", "flights", {**TABLE.columns, "source": "VARCHAR"}, ("source", "flight"))

    def put(source: str, rows: Sequence[Row]) -> None:
        query = f"SELECT *, $${source}$$ AS source FROM ({rows_sql(rows)})"
        replacement = Replacement(table, query, "left_at", only={"source": source})
        with lake.cursor("America/New_York") as cursor:
            replace_together(
                lake,
                cursor,
                [replacement],
                calendar=DAYS,
                window_range=day("2013-01-01"),
                commit=COMMIT,
            )

    put("it's", NEW_YEAR[:1])
    put("b", NEW_YEAR[1:])
    put("it's", [])
    assert read(lake, "source, flight") == [("b", 2)]


def test_two_writers_who_both_saw_an_empty_window_do_not_both_fill_it(lake):
    # The second transaction reads, then waits until the first has committed, then writes.
    with lake.cursor() as cursor:
        ensure_table(lake, cursor, TABLE, COMMIT)
    attempts = []

    def fill_if_empty(transaction):
        attempts.append(None)
        (count,) = transaction.execute("SELECT count(*) FROM lake.uc.flights").fetchone()
        if len(attempts) == 1:
            # Without the queue of writers: another machine does not stand in it.
            with lake.cursor() as other:
                _Transaction(COMMIT, fill_if_empty).run(other)
        if not count:
            transaction.execute(
                "INSERT INTO lake.uc.flights (window_start, flight) VALUES ('2013-01-01', 1)"
            )

    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, fill_if_empty)
        assert cursor.execute("SELECT count(*) FROM lake.uc.flights").fetchone() == (1,)
    assert len(attempts) == 3


def test_threads_share_one_lake(lake):
    failures = []

    def one(number: int) -> None:
        try:
            key = f"2013-01-0{number}"
            written = write(lake, day(key), [(number, f"{key} 08:00", float(number))])
            assert read(lake, "flight", written.snapshot).count((number,)) == 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(1, 9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert read(lake) == [(number, float(number)) for number in range(1, 9)]


def read_since(lake: Lake) -> dict[int, int]:
    return dict(read(lake, "flight, _snapshot"))


@pytest.mark.slow
def test_a_month_that_is_written_again_as_a_whole_loses_and_doubles_no_row(lake):
    days = [f"2013-01-{n:02d}" for n in range(1, 7)] + ["2013-02-03", "2013-02-04"]
    rows: list[Row] = [(n, f"{key} 08:00", 0.0) for n, key in enumerate(days)]
    first = write(lake, day(days[0], days[-1]), rows).snapshot
    held, since = dict.fromkeys(range(8), 0.0), dict.fromkeys(range(8), first)
    # Single days, often enough that the files of January become too many; then one that goes, one
    # that comes, and some of both months at once.
    for turn, changed in enumerate([[2], [2], [4], [2], [4], [0, 7], [2, 7], [6]], start=1):
        window_range = day(days[changed[0]], days[changed[-1]])
        held |= dict.fromkeys(changed, float(turn))
        inside = [n for n in held if changed[0] <= n <= changed[-1]]
        written = write(lake, window_range, [(n, f"{days[n]} 08:00", held[n]) for n in inside])
        assert written.changed == {day(days[n]) for n in changed}
        since |= dict.fromkeys(changed, written.snapshot)
        assert read(lake) == list(held.items())
        assert read_since(lake) == since
    for turn in range(4):
        gone = write(lake, day(days[3]), [])
        assert gone.changed == {day(days[3])}
        assert read(lake) == [(n, value) for n, value in held.items() if n != 3]
        came = write(lake, day(days[3]), [(3, f"{days[3]} 08:00", float(turn))])
        held[3], since[3] = float(turn), came.snapshot
        assert read(lake) == list(held.items())
        assert read_since(lake) == since


def test_rows_of_others_stay_in_a_month_that_is_written_again(lake):
    table = Table("uc", "flights", {**TABLE.columns, "source": "VARCHAR"}, ("source", "flight"))

    def put(source: str, delay: float) -> None:
        row = rows_sql([(1, "2013-01-01 08:00", delay)])
        replacement = Replacement(
            table, f"SELECT *, '{source}' AS source FROM ({row})", "left_at",
            only={"source": source, "flight": "1"},
        )  # fmt: skip
        with lake.cursor("America/New_York") as cursor:
            replace_together(
                lake,
                cursor,
                [replacement],
                calendar=DAYS,
                window_range=day("2013-01-01"),
                commit=COMMIT,
            )

    for turn in range(5):
        put("a", turn)
        put("b", -turn)
        assert sorted(read(lake, "source, delay")) == [("a", turn), ("b", -turn)]
    both = Replacement(table, "", "left_at", only={"source": "it's", "flight": "1"})
    assert both.scope.count(" AND ") == 1
    assert "'it''s'" in both.scope


def test_many_windows_are_found_as_few_are(lake, monkeypatch):
    monkeypatch.setattr("ml_platform.storage.replacement.FEW_WINDOWS", 1)
    written = write(
        lake, day("2013-01-01", "2013-01-02"), [*NEW_YEAR, (3, "2013-01-02 01:00", 1.0)]
    )
    assert list(written.rows.values()) == [2, 1]
    assert read(lake) == [(1, 5.0), (2, None), (3, 1.0)]


def test_windows_have_a_digest_of_what_they_hold_and_not_of_stamps(lake):
    both = day("2013-01-01", "2013-01-02")
    first, second = day("2013-01-01"), day("2013-01-02")
    one = write(lake, both, [*NEW_YEAR, (3, "2013-01-02 01:00", 1.0)])
    assert all(re.fullmatch(r"[12]-[0-9a-f]{16}", each) for each in one.versions.values())
    assert write(lake, both, [], made_at="2021-01-01").versions == {
        first: "0-0000000000000000", second: "0-0000000000000000",
    }  # fmt: skip
    again = write(lake, both, [*NEW_YEAR, (3, "2013-01-02 01:00", 2.0)], made_at="2021-01-01")
    assert again.versions[first] == one.versions[first]
    assert again.versions[second] != one.versions[second]
    assert write(lake, first, NEW_YEAR).versions == {first: one.versions[first]}


def test_rows_that_stay_within_the_tolerance_keep_their_digest(lake):
    at = "2013-01-01 08:00"
    first = write(lake, day("2013-01-01"), [(1, at, 0.3)], table=COMPUTED)
    again = write(lake, day("2013-01-01"), [(1, at, 0.1 + 0.2)], table=COMPUTED)
    assert (again.versions, again.rows) == (first.versions, first.rows)
    assert read(lake) == [(1, 0.3)]


def test_only_windows_that_differ_by_more_than_the_tolerance_are_written(lake):
    keys = ["2013-01-01", "2013-01-02", "2013-01-03"]
    before = [(n, f"{key} 08:00", 0.3) for n, key in enumerate(keys)]
    after = [(n, at, (0.1 + 0.2, 0.4, 0.1 + 0.2)[n]) for n, at, _ in before]
    write(lake, day(keys[0], keys[-1]), before, table=COMPUTED)
    written = write(lake, day(keys[0], keys[-1]), after, table=COMPUTED)
    assert written.changed == {day(keys[1])}
    assert read(lake) == [(0, 0.3), (1, 0.4), (2, 0.3)]


def test_refusals_name_table_key_and_bounds_and_say_what_to_do(lake):
    twice = [(n, "2013-01-01 08:00", 1.0) for n in (2, 1, 1, 2)]
    with pytest.raises(DuplicateRows) as refused:
        write(lake, day("2013-01-01"), twice)
    assert str(refused.value) == (
        "uc.flights: 2 rows with left_at 2013-01-01 08:00:00-05:00, flight 1; there may be one: "
        "group by these columns in the query, or pick one row with QUALIFY row_number() … = 1"
    )
    with pytest.raises(LakeError) as outside:
        write(lake, day("2013-01-01"), [(1, "2013-01-02 00:00", 1.0), (2, "2013-01-03", 1.0)])
    assert str(outside.value) == (
        "uc.flights: 2 rows have a left_at outside [2013-01-01T05:00:00Z, 2013-01-02T05:00:00Z)"
    )
    early = Window(datetime(2012, 5, 1, tzinfo=UTC), datetime(2012, 5, 2, tzinfo=UTC))
    with pytest.raises(LakeError) as before:
        write(lake, early, [])
    assert str(before.value) == (
        "[2012-05-01T00:00:00+00:00, 2012-05-02T00:00:00+00:00) ends before the first partition, "
        "2013-01-01T00:00:00-05:00"
    )


def test_nothing_is_left_on_the_connection_whether_the_write_succeeds_or_not(lake):
    with lake.cursor("America/New_York") as cursor:
        for rows in (NEW_YEAR, [NEW_YEAR[0], NEW_YEAR[0]]):
            with suppress(DuplicateRows):
                replace_windows(
                    lake, cursor, TABLE, rows_sql(rows),
                    time="left_at", calendar=DAYS, window_range=day("2013-01-01"), commit=COMMIT,
                )  # fmt: skip
            left = cursor.execute("SELECT table_name FROM duckdb_tables() WHERE temporary")
            assert left.fetchall() == []


def test_a_time_without_an_offset_is_one_of_the_sessions_zone(lake):
    table = Table("uc", "flights", {**TABLE.columns, "left_at": "TIMESTAMP"}, TABLE.order)
    write(lake, day("2013-01-01"), [], table=table, query=(
        "SELECT 1 AS flight, TIMESTAMP '2013-01-01 23:30' AS left_at, 1.0 AS delay, "
        "TIMESTAMPTZ '2020-01-01' AS made_at"
    ))  # fmt: skip
    assert read(lake, "flight, window_start::VARCHAR") == [(1, "2013-01-01 05:00:00")]


def test_a_window_is_replaced_as_a_whole_also_where_the_range_begins_within_it(lake):
    write(lake, day("2013-01-01", "2013-01-02"), [*NEW_YEAR, (3, "2013-01-02 20:00", 1.0)])
    noon = DAYS.window("2013-01-01").start + timedelta(hours=12)
    written = write(lake, Window(noon, noon + timedelta(hours=24)), [(4, "2013-01-02 01:00", 2.0)])
    assert list(written.rows.items()) == [(day("2013-01-01"), 0), (day("2013-01-02"), 1)]
    assert read(lake) == [(4, 2.0)]


@pytest.mark.parametrize("wrote", [True, False])
def test_what_is_written_alongside_makes_the_snapshot_that_it_is_given(lake, wrote):
    write(lake, day("2013-01-01"), NEW_YEAR)
    before, reported = newest(lake), []

    def alongside(transaction, number):
        reported.append(number)
        if wrote:
            transaction.execute("CREATE TABLE lake.uc.noted AS SELECT 1 AS one")
        return wrote

    with lake.cursor("America/New_York") as cursor:
        (written,) = replace_together(
            lake, cursor, [Replacement(TABLE, rows_sql(NEW_YEAR), "left_at")], calendar=DAYS,
            window_range=day("2013-01-01"), commit=COMMIT, alongside=alongside,
        )  # fmt: skip
    assert reported == [before + 1]
    assert (written.changed, written.snapshot) == (frozenset(), before + wrote)
    assert newest(lake) == before + wrote


def test_rows_that_were_computed_from_what_has_changed_are_not_written(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)

    def put(basis: Basis) -> None:
        with lake.cursor("America/New_York") as cursor:
            replace_windows(
                lake, cursor, TABLE, rows_sql([]), time="left_at", calendar=DAYS,
                window_range=day("2013-01-01"), commit=COMMIT, basis=basis,
            )  # fmt: skip

    before = newest(lake)
    write(lake, day("2013-01-01"), NEW_YEAR[:1])
    with pytest.raises(InputsChanged, match=r"uc\.flights was changed after snapshot"):
        put(Basis(lake, "uc", before, (Read("flights"),)))
    assert read(lake) == [(1, 5.0)]
    put(Basis(lake, "uc", newest(lake), (Read("flights"),)))
    assert read(lake) == []
    with lake.cursor() as cursor:
        (said,) = cursor.execute(
            "SELECT commit_extra_info->>'$.begun_at' FROM lake.snapshots() "
            "ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchone()
    assert said == str(before + 1)


def calendar_of(lake: Lake) -> StoredCalendar | None:
    with lake.cursor() as cursor:
        return stored_calendars(cursor, "uc")["flights"]


def test_a_table_notes_the_calendar_of_its_windows_and_is_written_by_no_other(lake):
    write(lake, day("2013-01-01"), NEW_YEAR)
    assert calendar_of(lake) == StoredCalendar.of(DAYS)
    weeks = Calendar.of(Cadence.weekly, date(2013, 1, 6), "America/New_York")
    with (
        lake.cursor("America/New_York") as cursor,
        pytest.raises(CalendarChanged, match=r"uc\.flights was written by the calendar"),
    ):
        replace_windows(
            lake, cursor, TABLE, rows_sql([]), time="left_at", calendar=weeks,
            window_range=day("2013-01-06"), commit=COMMIT,
        )  # fmt: skip
    assert read(lake) == [(1, 5.0), (2, None)]
