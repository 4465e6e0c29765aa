"""What a database is asked for: the rows of a range are those of its windows, however times are."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pymysql
import pytest
from pydantic import SecretStr

from ml_platform.settings import Settings
from ml_platform.sources import arrivals, ingest
from ml_platform.sources.row_staging import MOST_RANGES, parts_of
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.database_servers import mysql_database

COMMIT = Commit("run-1", "abc")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
FIRST = datetime(2024, 3, 1, 5, tzinfo=UTC)
SPEC = """\
description: Visits
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  visits:
    table: TABLE
    high_water: revision
    event_time: seen_at
    key: [visit]
    columns: {visit: VARCHAR, seen_at: TYPE, revision: BIGINT}
examples: {source: visits, entity: [visit], columns: ["length(visit) AS letters"]}
label: {task: regression}
model: {metric: mae}
"""
TEXTS = (
    "2024-03-02 12:00:00", "2024-03-02T23:59:59", "2024-03-03 02:00:00+14:00", "2024-03-03",
    "2024-03-01 22:30:00-05:00", "2024-03-10 02:30:00", "2024-03-10", " 2024-03-04 01:00:00",
    "2024-3-4 01:00:00", "2024/03/05", "gestern", "1999-12-31", "infinity", "-infinity", "",
    1709380800, 1709467200.5, None,
)  # fmt: skip
TIMES = (
    "2024-03-02 12:00:00", "2024-03-02 23:59:59.999999", "2024-03-03 00:00:00",
    "2024-03-10 02:30:00", "2024-03-10 00:00:00", "2024-03-11 03:59:59", "1999-12-31 00:00:00",
    None,
)  # fmt: skip


def declared(root: Path, table: str, kind: str) -> UseCase:
    folder = root / "visits"
    folder.mkdir()
    spec = SPEC.replace("TABLE", f"erp.{table}").replace("TYPE", kind)
    (folder / "use_case.yaml").write_text(spec)
    (folder / "labels.sql").write_text(
        "SELECT visit, CAST(seen_at AS TIMESTAMPTZ) AS event_time, 1.0 AS label, known_at "
        "FROM visits"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    return load_use_case(folder, ["erp"])


def held(root: Path, use_case: UseCase, setting: str, days: int) -> list[tuple[Any, ...]]:
    """Rows and quarantined ones after two weeks were ingested, so many days at a time."""
    lake = Lake(Settings(data=root / f"by-{days}", databases={"erp": SecretStr(setting)}))
    windows = list(use_case.calendar.windows(Window(FIRST, FIRST + timedelta(days=14))))
    for at in range(0, len(windows), days):
        some = windows[at : at + days]
        window_range = Window(some[0].start, some[-1].end)
        report = ingest(lake, use_case, "visits", window_range, COMMIT)
        assert all(c.landed == c.ingested + c.quarantined for c in report.windows.values())
    with lake.cursor() as cursor:
        rows = cursor.execute(
            """SELECT window_start, visit, CAST(seen_at AS VARCHAR), '' FROM lake.visits.visits
            UNION ALL SELECT window_start, record, '', reason FROM lake.visits.quarantine
            ORDER BY ALL"""
        ).fetchall()
    lake.close()
    return rows


def require_same(root: Path, use_case: UseCase, setting: str, rows: int) -> None:
    whole = held(root, use_case, setting, 14)
    assert len(whole) == rows
    assert held(root, use_case, setting, 1) == whole


@pytest.mark.parametrize("column", ["TIMESTAMP", "TEXT", "DATE"])
def test_days_of_sqlite_are_its_range_whatever_form_times_have(tmp_path, column):
    file = tmp_path / "erp.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"CREATE TABLE visits (visit TEXT, seen_at {column}, revision INTEGER)")
        rows = [(str(n), at, n) for n, at in enumerate(TEXTS)]
        connection.executemany("INSERT INTO visits VALUES (?, ?, ?)", rows)
        connection.commit()
    use_case = declared(tmp_path, "main.visits", "TIMESTAMPTZ")
    require_same(tmp_path, use_case, f"sqlite:{file}", len(TEXTS))


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.parametrize("column", ["TIMESTAMPTZ", "TIMESTAMP", "DATE", "TEXT"])
@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "DATE"])
def test_days_of_postgresql_are_its_range(tmp_path, postgres, column, kind):
    postgres.psql("DROP TABLE IF EXISTS visits;")
    postgres.psql(f"CREATE TABLE visits (visit TEXT, seen_at {column}, revision BIGINT);")
    _insert(postgres.psql, (*TIMES, "infinity", "-infinity"))
    use_case = declared(tmp_path, "public.visits", kind)
    require_same(tmp_path, use_case, f"postgres:{postgres.get_uri()}", len(TIMES) + 2)
    if column != "TEXT":
        by_driver = f"adbc:driver=adbc_driver_postgresql uri='{postgres.get_uri()}'"
        postgres.psql("DELETE FROM visits WHERE seen_at IN ('infinity', '-infinity');")
        (tmp_path / "adbc").mkdir()
        require_same(tmp_path / "adbc", use_case, by_driver, len(TIMES))


@pytest.mark.slow
@pytest.mark.parametrize("column", ["DATETIME(6)", "TIMESTAMP(6) NULL", "DATE"])
def test_days_of_mysql_are_its_range(tmp_path, mariadb, column):
    with closing(pymysql.connect(**mariadb)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP DATABASE IF EXISTS visits")
        cursor.execute("DROP USER IF EXISTS visits@'127.0.0.1'")
    database = mysql_database(mariadb, "visits")
    database.run(f"CREATE TABLE visits (visit VARCHAR(9), seen_at {column}, revision BIGINT)")
    # At 02:30 clocks are set forward: a TIMESTAMP has no such time where the server's have it.
    _insert(lambda statement: database.run("SET time_zone = '+00:00'", statement), TIMES)
    use_case = declared(tmp_path, "visits.visits", "TIMESTAMPTZ")
    require_same(tmp_path, use_case, database.setting, len(TIMES))


def _insert(execute: Callable[[str], Any], times: tuple[str | None, ...]) -> None:
    shown = [f"'{at}'" if at else "NULL" for at in times]
    values = [f"('{n}', {at}, {n})" for n, at in enumerate(shown)]
    execute(f"INSERT INTO visits VALUES {', '.join(values)};")


def test_news_of_windows_that_are_apart_are_read_without_those_between(tmp_path):
    file = tmp_path / "erp.sqlite"
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE visits (visit TEXT, seen_at TIMESTAMP, revision INTEGER)")
        days = [f"2024-03-{day:02d} 12:00:00" for day in range(2, 30)]
        rows = [(str(n), at, n) for n, at in enumerate(days)]
        connection.executemany("INSERT INTO visits VALUES (?, ?, ?)", rows)
        use_case = declared(tmp_path, "main.visits", "TIMESTAMPTZ")
        lake = Lake(Settings(data=tmp_path / "d", databases={"erp": SecretStr(f"sqlite:{file}")}))
        seen = arrivals(lake, use_case, "visits", COMMIT, NOW).state
        ingest(lake, use_case, "visits", Window(FIRST, FIRST + timedelta(days=30)), COMMIT)
        connection.execute("UPDATE visits SET revision = 5000 WHERE visit IN ('0', '27')")
        # Those between are others, too, and nothing says so: they are not looked at.
        connection.execute("UPDATE visits SET revision = -5000 WHERE revision < 5000")
        found = arrivals(lake, use_case, "visits", COMMIT, NOW, seen)
    assert [window.start.day for window in found.windows] == [2, 29]
    lake.close()


def days(*starts: int) -> list[Window]:
    return [
        Window(FIRST + timedelta(days=start), FIRST + timedelta(days=start + 1)) for start in starts
    ]


def spans(parts: list[Window]) -> Iterator[tuple[int, int]]:
    return ((((part.start - FIRST).days), (part.end - FIRST).days) for part in parts)


def test_windows_side_by_side_are_asked_for_as_one_range():
    assert list(spans(parts_of(days(0, 1, 2, 5, 6)))) == [(0, 3), (5, 7)]
    assert parts_of([]) == []


def test_many_windows_apart_are_a_few_ranges_with_little_between():
    apart = [*range(0, 20, 2), 50, 100]
    parts = list(spans(parts_of(days(*apart))))
    assert len(parts) == MOST_RANGES
    assert parts[-2:] == [(50, 51), (100, 101)]
    assert all(any(a <= day < b for a, b in parts) for day in apart)
