"""What counts as a change in what a command has read."""

from collections.abc import Callable
from datetime import date, timedelta

import duckdb
import pytest

from ml_platform.errors import CalendarChanged, CommitConflict, InputsChanged
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Read,
    Replacement,
    Table,
    begin_again,
    compute_windows,
    replace_together,
)
from ml_platform.storage.basis import read_of
from ml_platform.storage.tables import naive_utc
from tests.trips_use_case import at, days, write_folder

DAYS = Calendar.of(Cadence.daily, date(2024, 3, 1), "UTC")
TABLE = Table(
    "trips", "seen", {"at": "TIMESTAMPTZ", "source": "VARCHAR", "value": "BIGINT"}, ("at",)
)
COMMIT = Commit("run", "code")


def write(lake: Lake, day: int, value: int | None, source: str = "a") -> None:
    """Make a day hold one row of a source, or none of it where the value is None."""
    window = DAYS.window(f"2024-03-{day:02d}")
    query = (
        f"SELECT TIMESTAMPTZ '2024-03-{day:02d} 12:00:00+00' AS at, '{source}' AS source, "
        f"{value or 0} AS value WHERE {value is not None}"
    )
    with lake.cursor() as cursor:
        replace_together(
            lake, cursor, [Replacement(TABLE, query, "at", {"source": source})],
            calendar=DAYS, window_range=window, commit=COMMIT,
        )  # fmt: skip


def of_days(first: int, last: int, only: dict[str, str] | None = None) -> Read:
    start, end = DAYS.window(f"2024-03-{first:02d}").start, DAYS.window(f"2024-03-{last:02d}").end
    return Read("seen", (naive_utc(start), naive_utc(end)), only or {})


@pytest.fixture
def holds(lake: Lake) -> Callable[[Read, Callable[[], None]], bool]:
    """Whether a read still holds after something was done."""

    def after(read: Read, act: Callable[[], None]) -> bool:
        with lake.cursor() as cursor:
            basis = Basis(lake, "trips", lake.snapshot(cursor), (read,))
            act()
            try:
                lake.transact(cursor, COMMIT, basis.require)
            except InputsChanged:
                return False
        return True

    return after


def test_only_other_rows_in_the_windows_that_were_read_are_a_change(
    lake: Lake, holds: Callable[[Read, Callable[[], None]], bool]
) -> None:
    write(lake, 1, 1)
    write(lake, 2, 2)
    assert holds(of_days(1, 2), lambda: None)
    assert not holds(of_days(1, 2), lambda: write(lake, 2, 3))
    assert holds(of_days(1, 2), lambda: write(lake, 3, 3))
    assert holds(of_days(1, 2), lambda: write(lake, 2, 3)), "the same row again is none"
    assert not holds(Read("seen"), lambda: write(lake, 9, 9)), "the whole table was read"
    assert holds(Read("elsewhere"), lambda: write(lake, 9, 10))


def test_rows_of_others_in_a_shared_table_are_no_change(
    lake: Lake, holds: Callable[[Read, Callable[[], None]], bool]
) -> None:
    write(lake, 1, 1)
    ours = of_days(1, 3, {"source": "a"})
    assert holds(ours, lambda: write(lake, 2, 1, source="b"))
    assert not holds(ours, lambda: write(lake, 3, 1, source="a"))
    assert not holds(ours, lambda: write(lake, 3, None, source="a")), "a row of ours is gone"


def test_a_table_that_appears_is_a_change_and_merged_files_are_none(
    lake: Lake, holds: Callable[[Read, Callable[[], None]], bool]
) -> None:
    assert not holds(of_days(1, 5), lambda: write(lake, 1, 1))
    write(lake, 2, 2)

    def merge() -> None:
        with lake.cursor() as cursor:
            cursor.execute("CALL ducklake_merge_adjacent_files('lake', 'seen', schema => 'trips')")

    assert holds(of_days(1, 5), merge)


def test_a_command_begins_again_from_the_newer_rows(lake: Lake, use_case: UseCase) -> None:
    write(lake, 1, 1)
    bases: list[int] = []

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> int:
        (value,) = cursor.execute("SELECT value FROM lake.trips.seen").fetchall()[0]
        bases.append(basis.snapshot)
        if len(bases) == 1:
            write(lake, 1, 2)
        lake.transact(cursor, COMMIT, basis.require)
        return int(value)

    assert begin_again(lake, use_case, [of_days(1, 1)], "a test", compute) == 2
    assert bases == [bases[0], bases[0] + 1]


def test_what_changes_each_time_ends_in_a_conflict_that_names_the_table(
    tmp_path_factory: pytest.TempPathFactory, use_case: UseCase
) -> None:
    lake = Lake(Settings(data=tmp_path_factory.mktemp("lake"), commit_retries=2))
    values = iter(range(100))

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> None:
        write(lake, 1, next(values))
        lake.transact(cursor, COMMIT, basis.require)

    with pytest.raises(CommitConflict, match=r"a test: began again 2 times.* trips\.seen was chan"):
        begin_again(lake, use_case, [of_days(1, 1)], "a test", compute)
    assert next(values) == 3
    lake.close()


def read_by(lake: Lake, use_case: UseCase, table: str) -> list[Read]:
    """What two days of a table are computed from, the 12th and the 13th in New York."""
    found = compute_windows(lake, use_case, table, days(12, 13), COMMIT, lambda _, basis: basis)
    assert (found.schema, found.lake) == ("trips", lake)
    return list(found.reads)


def of_local_days(
    table: str, first: int, last: int, only: dict[str, str] | None = None, month: int = 3
) -> Read:
    end = naive_utc(at(last)) + timedelta(days=1)
    return Read(table, (naive_utc(at(first, month=month)), end), only or {})


def test_a_range_of_a_table_depends_on_what_it_is_declared_to_be_computed_from(
    lake: Lake, use_case: UseCase
) -> None:
    assert read_by(lake, use_case, "trips") == [
        of_local_days("trips", 12, 13),
        of_local_days("quarantine", 12, 13, {"source": "trips"}),
        of_local_days("trips_versions", 12, 13),
    ]
    assert read_by(lake, use_case, "pace_features") == [
        of_local_days("trips", 11, 13),
        of_local_days("trips_versions", 11, 13),
    ]
    assert read_by(lake, use_case, "labels") == [
        of_local_days("trips", 12, 14),
        of_local_days("trips_versions", 12, 14),
    ]
    assert read_by(lake, use_case, "predictions") == [
        of_local_days("trips", 12, 13), of_local_days("pace_features", 11, 13), Read("promotions"),
        of_local_days("trips_versions", 12, 13), of_local_days("pace_features_versions", 11, 13),
    ]  # fmt: skip
    # The report of a day trails back 28 days.
    assert of_local_days("labels", 14, 13, month=2) in read_by(lake, use_case, "drift_report")


def test_a_range_that_begins_within_a_window_depends_on_the_whole_of_it(use_case: UseCase) -> None:
    noon = Window(at(12, 12), at(13, 12))
    assert read_of(use_case, "labels", noon) == Read(
        "labels", (naive_utc(at(12)), naive_utc(at(13, 12)))
    )


def test_each_attempt_says_from_which_snapshot_on_it_reads(lake: Lake, use_case: UseCase) -> None:
    begun: list[int] = []
    commit = Commit("run", "code", extra={"partition": "2024-03-12"}, begins=begun.append)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> dict[str, str]:
        if len(begun) == 1:
            raise InputsChanged("trips.trips was changed")
        return dict(basis.also(Read("more")).stamp(commit).extra)

    write(lake, 1, 1)
    with lake.cursor() as cursor:
        now = lake.snapshot(cursor)
        # The table of this module notes another calendar.
        cursor.execute("DROP TABLE lake.trips.seen")
    found = compute_windows(lake, use_case, "labels", days(12, 13), commit, compute)
    assert begun == [now + 1, now + 1]
    assert found == {"partition": "2024-03-12", "begun_at": f"{now + 1}"}


def test_a_range_is_not_computed_beside_windows_of_another_calendar(
    lake: Lake, use_case: UseCase
) -> None:
    write(lake, 1, 1)
    with pytest.raises(CalendarChanged, match=r"trips\.seen was written by the calendar"):
        compute_windows(lake, use_case, "labels", days(12, 13), COMMIT, lambda _, basis: basis)


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return write_folder(tmp_path_factory.mktemp("spec"), "binary")
