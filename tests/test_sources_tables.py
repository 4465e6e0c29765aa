"""Rows of database tables as sources, on SQLite, on PostgreSQL and on MariaDB."""

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pymysql
import pytest
from pydantic import SecretStr

from ml_platform.backfill.upkeep import Circumstances, catch_up
from ml_platform.errors import LakeError, LakeUnavailable, LandingError
from ml_platform.settings import Settings
from ml_platform.sources import IngestReport, arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.database_servers import mysql_database

pytestmark = pytest.mark.slow

COMMIT = Commit("run-1", "abc")
NOW = datetime(2024, 6, 1, tzinfo=UTC)
MARCH_IS_OVER = datetime(2024, 3, 8, tzinfo=UTC)
SPEC = """\
description: Orders
partitions: {cadence: daily, start: 2024-03-01}
sources:
  orders:
    table: TABLE
    high_water: updated_at
    event_time: ordered_at
    key: [order_id]
    columns: {order_id: VARCHAR, ordered_at: TIMESTAMPTZ, updated_at: TIMESTAMPTZ, weight: DOUBLE}
    rules: ["weight > 0"]
examples: {source: orders, entity: [order_id], columns: ["weight"]}
label: {task: regression}
model: {metric: mae}
"""
DRIVERS = ("sqlite", "postgres", "duckdb")
COLUMNS = "order_id TEXT, ordered_at TIMESTAMP{}, updated_at TIMESTAMP{}, weight FLOAT"

FUNCTION = """\
import sqlite3

import pyarrow as pa


def orders(start, end, since, database):
    connection = sqlite3.connect(database.removeprefix("python:"))
    query = "SELECT * FROM orders"
    bounds, values = [], []
    for column, sign, value in (
        ("ordered_at", ">=", start), ("ordered_at", "<", end), ("updated_at", ">=", since)
    ):
        if value is not None:
            bounds.append(f"({column} {sign} ? OR ordered_at IS NULL)")
            values.append(value.strftime("%Y-%m-%d %H:%M:%S"))
    rows = connection.execute(query + (" WHERE " + " AND ".join(bounds) if bounds else ""), values)
    names = [column[0].lower() for column in rows.description]
    while some := rows.fetchmany(2):
        columns = [pa.array(values, pa.float64() if name.startswith("weight") else pa.string())
                   for name, values in zip(names, zip(*some), strict=True)]
        yield pa.RecordBatch.from_arrays(columns, names)
    connection.close()
"""


class Orders:
    """A table in a database of its own, and a use case that reads it."""

    def __init__(
        self, root: Path, database: str, execute: Callable[[str], Any], schema: str = "public"
    ) -> None:
        self.execute = execute
        folder = root / "orders"
        folder.mkdir()
        kind = database.partition(":")[0]
        schema = {"sqlite": "main", "postgres": "public", "mysql": "orders"}.get(kind, schema)
        spec = SPEC.replace("TABLE", f"erp.{schema}.orders")
        if kind == "python":
            (folder / "source.py").write_text(FUNCTION)
            spec = SPEC.replace("table: TABLE", "python: source:orders\n    database: erp")
        (folder / "use_case.yaml").write_text(spec)
        (folder / "labels.sql").write_text(
            "SELECT order_id, ordered_at AS event_time, weight AS label, known_at FROM orders"
        )
        (folder / "model.py").write_text("def build():\n    pass\n")
        self.use_case: UseCase = load_use_case(folder, ["erp"])
        self.lake = Lake(Settings(data=root / "data", databases={"erp": SecretStr(database)}))
        self.seen: str | None = None

    def put(self, order: str, day: int, updated: str, weight: float = 1) -> None:
        """Insert or correct an order; updated: day and time, such as `02 10:00`."""
        self.execute(f"DELETE FROM orders WHERE order_id = '{order}'")
        self.execute(
            f"INSERT INTO orders VALUES ('{order}', '2024-03-{day:02d} 12:00:00', "
            f"'2024-03-{updated}:00', {weight})"
        )

    def look(self, seen: str | None = None) -> list[str]:
        """Days that are behind."""
        found = arrivals(self.lake, self.use_case, "orders", COMMIT, NOW, seen or self.seen)
        self.seen = found.state
        return [self.use_case.calendar.key(window)[-2:] for window in found.windows]

    def take_in(self, first: int, last: int) -> IngestReport:
        window_range = Window(
            datetime(2024, 3, first, tzinfo=UTC), datetime(2024, 3, last + 1, tzinfo=UTC)
        )
        commit = Commit("run-1", code_version(self.use_case, "orders"))
        return ingest(self.lake, self.use_case, "orders", window_range, commit)

    def caught_up(self, table: str = "orders") -> int:
        """How many days of a table are asked for where nobody else asks."""
        chunks = catch_up(self.lake, self.use_case, MARCH_IS_OVER, Circumstances())
        return sum(chunk.due.get(table, 0) for chunk in chunks)

    def rows(self, columns: str, table: str = "orders") -> list[tuple[Any, ...]]:
        with self.lake.cursor() as cursor:
            query = f"SELECT {columns} FROM lake.orders.{table} ORDER BY ALL"
            return cursor.execute(query).fetchall()


@pytest.fixture(
    params=[
        "sqlite",
        "python",
        *(
            pytest.param(kind, marks=pytest.mark.slow)
            for kind in (
                "postgres",
                "mysql",
                "adbc to sqlite",
                "adbc to postgres",
                "adbc to duckdb",
            )
        ),
    ]
)
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orders]:
    if request.param == "sqlite":
        connection = sqlite3.connect(tmp_path / "erp.sqlite", isolation_level=None)
        connection.execute(f"CREATE TABLE orders ({COLUMNS.format('', '')})")
        made = Orders(tmp_path, f"sqlite:{tmp_path / 'erp.sqlite'}", connection.execute)
    elif request.param == "adbc to sqlite":
        connection = sqlite3.connect(tmp_path / "erp.sqlite", isolation_level=None)
        connection.execute(f"CREATE TABLE orders ({COLUMNS.format('', '')})")
        where = f"driver=adbc_driver_sqlite uri='{tmp_path / 'erp.sqlite'}'"
        made = Orders(tmp_path, f"adbc:{where}", connection.execute, "main")
    elif request.param == "adbc to duckdb":
        file = tmp_path / "erp.duckdb"
        _duckdb(file, f"CREATE TABLE orders ({COLUMNS.format('TZ', 'TZ')})")
        where = f"driver=adbc_driver_duckdb entrypoint=duckdb_adbc_init path='{file}'"
        made = Orders(tmp_path, f"adbc:{where}", partial(_duckdb, file), "main")
    elif request.param == "python":
        connection = sqlite3.connect(tmp_path / "erp.sqlite", isolation_level=None)
        connection.execute(f"CREATE TABLE orders ({COLUMNS.format('', '')})")
        made = Orders(tmp_path, f"python:{tmp_path / 'erp.sqlite'}", connection.execute)
    elif request.param == "mysql":
        root = request.getfixturevalue("mariadb")
        with closing(pymysql.connect(**root)) as connection, connection.cursor() as cursor:
            cursor.execute("DROP DATABASE IF EXISTS orders")
            cursor.execute("DROP USER IF EXISTS orders@'127.0.0.1'")
        database = mysql_database(root, "orders")
        text = COLUMNS.format("", "").replace("TIMESTAMP", "DATETIME(6)")
        database.run(f"CREATE TABLE orders ({text.replace('FLOAT', 'DOUBLE')})")
        made = Orders(tmp_path, database.setting, database.run)
    else:
        server = request.getfixturevalue("postgres")
        server.psql("DROP TABLE IF EXISTS orders;")
        server.psql(f"CREATE TABLE orders ({COLUMNS.format('TZ', 'TZ')});")
        where = f"postgres:{server.get_uri()}"
        if request.param != "postgres":
            where = f"adbc:driver=adbc_driver_postgresql uri='{server.get_uri()}'"
        made = Orders(
            tmp_path,
            where,
            lambda query: server.psql(f"SET TimeZone = 'UTC'; {query};"),
        )
    yield made
    made.lake.close()


def _duckdb(file: Path, statement: str) -> None:
    with duckdb.connect(str(file)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(statement)


def test_new_rows_are_seen_by_their_high_water_value_and_once(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 4, "04 13:00")
    assert orders.look() == ["02", "04"]
    report = orders.take_in(2, 4)
    assert [(c.landed, c.ingested) for c in report.windows.values()] == [(1, 1), (0, 0), (1, 1)]
    assert orders.look() == []
    orders.put("c", 5, "05 13:00")
    assert orders.look() == ["05"]


def test_a_late_correction_brings_back_the_window_it_touches(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 4, "04 13:00")
    orders.look()
    orders.take_in(2, 4)
    orders.put("a", 2, "09 08:00", weight=7)
    assert orders.look() == ["02"]
    orders.take_in(2, 2)
    assert orders.rows("order_id, weight") == [("a", 7.0), ("b", 1.0)]
    assert orders.look() == []


def test_a_row_that_moves_to_another_day_brings_back_both_days(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.look()
    orders.take_in(2, 2)
    orders.put("a", 6, "09 08:00")
    assert orders.look() == ["02", "06"]
    orders.take_in(2, 6)
    assert orders.rows("order_id, day(ordered_at)") == [("a", 6)]
    assert orders.look() == []


def test_a_row_that_was_committed_late_is_seen_all_the_same(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.look()
    orders.take_in(2, 2)
    # Its transaction began before the other one, and ended after it.
    orders.put("b", 3, "02 12:55")
    assert orders.look() == ["03"]


def test_a_lost_cursor_asks_for_nothing_twice_and_nothing_that_was_purged(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 4, "04 13:00")
    orders.look()
    orders.take_in(2, 4)
    orders.execute("DELETE FROM orders WHERE order_id = 'a'")
    orders.put("c", 4, "04 14:00")
    orders.seen = None
    assert orders.look() == ["04"]
    assert orders.rows("order_id") == [("a",), ("b",)]


def test_each_row_names_table_and_high_water_value(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 2, "02 13:00")
    orders.take_in(2, 2)
    table = orders.use_case.sources["orders"].rows_of
    origin = f"{table}@2024-03-02T13:00:00.000000Z"
    assert orders.rows("_file, _row, order_id") == [(origin, 1, "a"), (origin, 2, "b")]


def test_rows_that_break_the_contract_are_quarantined_and_none_is_lost(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00", weight=-1)
    orders.put("b", 2, "02 14:00")
    orders.execute("INSERT INTO orders VALUES ('c', NULL, '2024-03-02 15:00:00', 1)")
    orders.execute(
        "INSERT INTO orders VALUES ('d', '2023-12-31 12:00:00', '2024-03-01 15:00:00', 1)"
    )
    report = orders.take_in(1, 2)
    assert [(c.landed, c.ingested, c.quarantined) for c in report.windows.values()] == [
        (1, 0, 1),
        (3, 1, 2),
    ]
    assert [reason for (reason,) in orders.rows("reason", "quarantine")] == [
        "breaks the rule: weight > 0",
        "ordered_at is before the first window: 2023-12-31 12:00:00+00",
        "ordered_at is missing",
    ]
    again = orders.take_in(1, 2)
    with orders.lake.cursor() as cursor:
        assert again.snapshot == report.snapshot == orders.lake.snapshot(cursor)


def test_a_value_that_sqlite_lets_in_anywhere_breaks_the_contract_of_its_row_alone(
    tmp_path: Path,
) -> None:
    connection = sqlite3.connect(tmp_path / "erp.sqlite", isolation_level=None)
    connection.execute(f"CREATE TABLE orders ({COLUMNS.format('', '')})")
    orders = Orders(tmp_path, f"sqlite:{tmp_path / 'erp.sqlite'}", connection.execute)
    orders.put("a", 2, "02 13:00", weight=1 / 3)
    orders.look()
    day = "'2024-03-02 12:00:00'"
    connection.executescript(f"""
        INSERT INTO orders VALUES ('b', {day}, '2024-03-02 13:00:00', 'viel');
        INSERT INTO orders VALUES ('c', {day}, 'gestern', 1);
        INSERT INTO orders VALUES ('d', {day}, '2024-03-02 13:00:00', x'ff00');
        INSERT INTO orders VALUES ('e', '2024-03-02 14:00:00+02:00', 1709388000, 2.0);
        INSERT INTO orders VALUES ('f', 1709380800.25, '2024-03-02 13:00:00', NULL);
    """)
    assert orders.look() == ["02"]
    (counts,) = orders.take_in(2, 2).windows.values()
    assert (counts.landed, counts.ingested, counts.quarantined) == (6, 3, 3)
    assert orders.rows("reason", "quarantine") == [
        ("updated_at: 'gestern' is not TIMESTAMPTZ",),
        ("weight: 'viel' is not DOUBLE",),
        ("weight: 'x'FF00'' is not DOUBLE",),
    ]
    assert orders.rows("order_id, epoch(ordered_at), epoch(updated_at), weight") == [
        ("a", 1709380800, 1709384400, 1 / 3),
        ("e", 1709380800, 1709388000, 2),
        ("f", 1709380800.25, 1709384400, None),
    ]
    assert orders.look() == []
    orders.lake.close()


def test_a_missing_column_is_named(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.execute("ALTER TABLE orders RENAME COLUMN weight TO weights")
    with pytest.raises(
        LandingError, match=r"'weight' (DOUBLE|FLOAT) is not there \(did you mean 'weights'\?\)"
    ):
        orders.take_in(2, 2)


@pytest.mark.parametrize("kind", ["postgres", "mysql"])
def test_a_database_that_cannot_be_opened_keeps_its_password(
    orders: Orders, tmp_path: Path, kind: str
) -> None:
    if orders.use_case.sources["orders"].python:
        # What a function does with what it is given is its own.
        return
    where = f"{kind}:host=127.0.0.1 port=1 password=hidden"
    lake = Lake(Settings(data=tmp_path / "other", databases={"erp": SecretStr(where)}))
    with pytest.raises(LakeError, match="database 'erp' cannot be opened") as caught:
        arrivals(lake, orders.use_case, "orders", COMMIT, NOW)
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(lake.settings)
    lake.close()


@pytest.mark.parametrize(
    ("where", "error", "said"),
    [
        ("uri='postgresql://ada:hidden@127.0.0.1:1/erp'", LakeUnavailable, "onnection refused"),
        ("uri='postgresql://ada:hidden@127.0.0.1:1/erp' lost", LandingError, "reads name=value"),
        ("password=hidden", LandingError, "database 'erp': erp.public.orders: "),
    ],
)
def test_a_driver_that_refuses_keeps_its_password(tmp_path, where, error, said) -> None:
    setting = f"adbc:driver=adbc_driver_postgresql {where}"
    orders = Orders(tmp_path, setting, lambda statement: None)
    with pytest.raises(error, match=said) as caught:
        orders.look()
    assert "hidden" not in str(caught.value)
    assert "\n" not in str(caught.value)
    orders.lake.close()


def test_a_driver_that_is_not_installed_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_manager", None)
    orders = Orders(tmp_path, "adbc:driver=adbc_driver_sqlite uri=x", lambda statement: None)
    with pytest.raises(LandingError, match=r"pip install 'ml-platform\[adbc\]'"):
        orders.look()
    orders.lake.close()


def test_what_was_not_ingested_is_caught_up_with(orders: Orders) -> None:
    orders.put("a", 1, "01 13:00")
    orders.put("b", 2, "02 13:00")
    # The sensor looked, and its run failed: it will not ask again for the same content.
    assert orders.look() == ["01", "02"]
    assert orders.caught_up() == 2
    orders.take_in(1, 2)
    assert orders.caught_up() == 0
    orders.put("a", 1, "05 13:00", weight=2)
    assert orders.caught_up() == 1


def test_a_table_that_cannot_be_read_holds_up_no_other(orders: Orders) -> None:
    orders.put("a", 1, "01 13:00")
    orders.take_in(1, 1)
    orders.execute("ALTER TABLE orders RENAME TO gone")
    assert orders.caught_up("orders") == 0
    assert orders.caught_up("labels") == 1


def test_a_corrected_row_is_known_from_its_high_water_value_on(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 2, "02 14:00")
    orders.take_in(2, 2)
    orders.put("a", 2, "09 08:00", weight=7)
    for _ in range(2):
        orders.take_in(2, 2)
    reported = "order_id, weight, day(_known_from), hour(_known_from), _known_until"
    corrected = datetime(2024, 3, 9, 8, tzinfo=UTC)
    assert orders.rows(reported, "orders_versions") == [
        ("a", 1.0, 2, 12, corrected),
        ("a", 7.0, 9, 8, None),
    ]


def test_a_row_that_moves_to_another_day_is_known_there_from_its_high_water_value_on(
    orders: Orders,
) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 6, "06 13:00")
    orders.take_in(2, 6)
    orders.put("a", 6, "09 08:00")
    orders.take_in(6, 6)
    reported = "order_id, day(ordered_at), day(_known_from), _known_until"
    assert orders.rows(reported, "orders_versions") == [("a", 6, 9, None)]


def test_a_row_that_a_table_lost_was_the_truth_until_that_was_seen(orders: Orders) -> None:
    orders.put("a", 2, "02 13:00")
    orders.put("b", 2, "02 14:00")
    orders.take_in(2, 2)
    orders.execute("DELETE FROM orders WHERE order_id = 'a'")
    orders.put("c", 2, "02 15:00")
    before = datetime.now(UTC)
    orders.take_in(2, 2)
    ((order, until),) = orders.rows("order_id, _known_until", "orders_versions")
    assert order == "a"
    assert until >= before
