"""What counts as a change in what a command has read."""

from collections.abc import Callable
from datetime import date

import duckdb
import pytest

from ml_platform.errors import CommitConflict, InputsChanged
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Calendar
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Read,
    Replacement,
    Table,
    begin_again,
    replace_together,
)
from ml_platform.storage.tables import naive_utc
from tests.trips_use_case import write_folder

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
            calendar=DAYS, stretch=window, commit=COMMIT,
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


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return write_folder(tmp_path_factory.mktemp("spec"), "binary")
