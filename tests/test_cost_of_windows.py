"""What one hour costs does not grow with the hours that there are: statements and rows read."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from benchmarks.counts import SENSORS, START, declare, land, land_hour
from ml_platform.backfill import judge
from ml_platform.backfill.local_run import compute
from ml_platform.impact import data_impact, source_row
from ml_platform.settings import Settings
from ml_platform.sources import arrivals
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.kept_models import KeptModels

COMMIT = Commit("test", "0")
TABLES = ("counts", "recent_features", "labels")
FEW, MANY = 31 * 24, 70 * 24
MORE_FILES = 2
"""One lands a month; each is listed, and known, by name."""
CHANGED = 40


class Counted:
    """A cursor that counts statements, and rows that come to Python."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, lake: "CountingLake") -> None:
        self._cursor, self._lake = cursor, lake

    def execute(self, *given: Any) -> "Counted":
        self._lake.statements += 1
        self._cursor.execute(*given)
        return self

    def fetchall(self) -> list[Any]:
        rows = self._cursor.fetchall()
        self._lake.rows += len(rows)
        return rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


class CountingLake(Lake):
    statements = 0
    rows = 0

    @contextmanager
    def cursor(self, timezone: str = "UTC") -> Iterator[Any]:
        with super().cursor(timezone) as cursor:
            yield Counted(cursor, self)


class Hours:
    """So many hours of counts, ingested and computed."""

    def __init__(self, folder: Path, hours: int) -> None:
        self.use_case: UseCase = declare(folder)
        self.landing = folder / "landing" / self.use_case.name
        land(self.landing, hours)
        settings = Settings(data=folder / "data", landing=str(folder / "landing"))
        self.lake = CountingLake(settings)
        self.look()
        self.compute(Window(START, START + timedelta(hours=hours)))

    def look(self) -> None:
        now = datetime.now(UTC) + timedelta(days=1)
        while arrivals(self.lake, self.use_case, "counts", COMMIT, now).left:
            pass

    def compute(self, window_range: Window) -> None:
        for table in TABLES:
            compute(self.lake, KeptModels(), self.use_case, table, window_range, "test")

    def correct(self, hour: int) -> tuple[int, int]:
        """Statements and rows that correcting one hour takes, once it has been looked at."""
        land_hour(self.landing, hour, seed=1)
        self.look()
        self.lake.statements = self.lake.rows = 0
        begin = START + timedelta(hours=hour)
        self.compute(Window(begin, begin + timedelta(hours=1)))
        return self.lake.statements, self.lake.rows


@pytest.fixture(scope="module")
def few_and_many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hours, Hours]]:
    made = [Hours(tmp_path_factory.mktemp("hours"), hours) for hours in (FEW, MANY)]
    yield made[0], made[1]
    for each in made:
        each.lake.close()


@pytest.mark.slow
def test_correcting_an_hour_takes_as_many_statements_and_rows_among_many_hours(
    few_and_many: tuple[Hours, Hours],
) -> None:
    few, many = few_and_many
    (statements, rows), (more_statements, more_rows) = few.correct(CHANGED), many.correct(CHANGED)
    assert more_statements == statements
    assert more_rows <= rows + 4 * MORE_FILES


@pytest.mark.slow
def test_an_hour_is_judged_without_the_others(few_and_many: tuple[Hours, Hours]) -> None:
    begin = START + timedelta(hours=CHANGED)
    window = Window(begin, begin + timedelta(hours=1))
    read = []
    for each in few_and_many:
        each.lake.statements = each.lake.rows = 0
        judge(each.lake, each.use_case, window)
        read.append((each.lake.statements, each.lake.rows))
    assert read[0] == read[1]


@pytest.mark.slow
def test_what_a_row_touched_is_found_without_the_other_hours(
    few_and_many: tuple[Hours, Hours],
) -> None:
    at = START + timedelta(hours=CHANGED + 5)
    key, window = {"sensor": "3", "counted_at": str(at)}, Window(at, at + timedelta(hours=1))
    read = []
    for each in few_and_many:
        each.lake.statements = each.lake.rows = 0
        subject = source_row(each.lake, each.use_case, "counts", key, at=window)
        impact = data_impact(each.lake, KeptModels(), each.use_case, subject)
        assert len(impact.tables["recent_features"].read) == 49
        read.append((each.lake.statements, each.lake.rows))
    assert read[0] == read[1]


def test_hours_leave_a_few_files_a_month(few_and_many: tuple[Hours, Hours]) -> None:
    _, many = few_and_many
    with many.lake.cursor() as cursor:
        for table in TABLES:
            rows = cursor.execute(
                f"""SELECT count(DISTINCT filename), count(*) FROM lake.passers.{table}
                GROUP BY date_trunc('month', window_start)"""
            ).fetchall()
            assert len(rows) == 3, table
            assert max(files for files, _ in rows) <= 3, table
            assert sum(count for _, count in rows) >= MANY * SENSORS - SENSORS, table
