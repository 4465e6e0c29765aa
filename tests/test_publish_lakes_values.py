"""Types and values in lakes of others, and what is refused there."""

import builtins
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from ml_platform.errors import TargetError, TargetUnavailable
from ml_platform.publish.opening import opened_target
from ml_platform.publish.target import Part, TargetTable
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from tests.shared_lakes import SHARED_LAKES, SharedLake, local_lake

START = datetime(2024, 3, 9, 5, tzinfo=UTC).replace(tzinfo=None)
END = datetime(2024, 3, 10, 5, tzinfo=UTC).replace(tzinfo=None)
VALUES = {
    "truth": ("BOOLEAN", "true", "BOOLEAN", True),
    "small": ("UTINYINT", "200", "INTEGER", 200),
    "short": ("SMALLINT", "-7", "INTEGER", -7),
    "wide": ("UINTEGER", "4000000000", "BIGINT", 4_000_000_000),
    "wider": ("UBIGINT", "18446744073709551615", "DECIMAL(20,0)", Decimal(2**64 - 1)),
    "huge": ("HUGEINT", f"'{10**30}'", "DECIMAL(38,0)", Decimal(10**30)),
    "money": ("DECIMAL(9,2)", "12.34", "DECIMAL(9,2)", Decimal("12.34")),
    "float": ("FLOAT", "0.1", "FLOAT", 0.10000000149011612),
    "odd": ("DOUBLE", "'nan'", "DOUBLE", "nan"),
    "text": ("VARCHAR", "'ä''\"🚲'", "VARCHAR", "ä'\"🚲"),
    "json": ("JSON", "'{}'", "VARCHAR", "{}"),
    "kind": ("ENUM('a', 'b')", "'b'", "VARCHAR", "b"),
    "named": ("UUID", "'00000000-0000-0000-0000-000000000007'", "VARCHAR",
              "00000000-0000-0000-0000-000000000007"),
    "bytes": ("BLOB", "'\\xAA\\x00'", "BLOB", b"\xaa\x00"),
    "date": ("DATE", "'2024-02-29'", "DATE", date(2024, 2, 29)),
    "time": ("TIME", "'12:30:00.25'", "VARCHAR", "12:30:00.25"),
    "local": ("TIMESTAMP", "'2024-03-09 12:00:00.000001'", "TIMESTAMP WITH TIME ZONE",
              datetime(2024, 3, 9, 17, 0, 0, 1, tzinfo=UTC)),
    "at": ("TIMESTAMP WITH TIME ZONE", "'2024-03-09 12:00:00.123456Z'",
           "TIMESTAMP WITH TIME ZONE", datetime(2024, 3, 9, 12, 0, 0, 123456, tzinfo=UTC)),
    "nothing": ("DOUBLE", "NULL", "DOUBLE", None),
}  # fmt: skip
"""Column → its type, a value, the type that is published, and what is read."""


@pytest.fixture(params=SHARED_LAKES)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> SharedLake:
    return local_lake(request.param, tmp_path)


def table_of(columns: dict[str, str], name: str = "values", **more: Any) -> TargetTable:
    named = {"number": "BIGINT", "event_time": "TIMESTAMP WITH TIME ZONE", **columns}
    return TargetTable(
        ("shop", name), named, ("number", "event_time"), "replace",
        **{"partition": "event_date", **more},
    )  # fmt: skip


@contextmanager
def staged(columns: dict[str, tuple[str, str]]) -> Iterator[duckdb.DuckDBPyConnection]:
    """One row to publish: type and value by column."""
    listed = "".join(f", CAST({v} AS {kind}) AS {quote(c)}" for c, (kind, v) in columns.items())
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        connection.execute(
            f"""CREATE TEMP TABLE __published AS SELECT TIMESTAMP '{START}' AS window_start,
            7::BIGINT AS number, TIMESTAMPTZ '2024-03-09 12:00:00Z' AS event_time {listed}"""
        )
        yield connection


def publish(shared: SharedLake, table: TargetTable, values: dict[str, tuple[str, str]]) -> int:
    made = Settings(data=shared.folder / "own", databases={"others": SecretStr(shared.setting)})
    with staged(values) as cursor, opened_target(made, "others") as target:
        target.prepare(cursor, table)
        return target.write(cursor, table, Part(START, END, 1, "2024-03-09"))


def test_values_arrive_in_types_that_all_engines_read(shared):
    table = table_of({column: kind for column, (kind, *_) in VALUES.items()})
    assert publish(shared, table, {c: (kind, v) for c, (kind, v, *_) in VALUES.items()}) == 1
    items = ", ".join(f"typeof({quote(c)}), {quote(c)}" for c in VALUES)
    for reader, ((*found,),) in shared.read("shop/values", items).items():
        for n, (column, (_, _, kind, value)) in enumerate(VALUES.items()):
            read = str(found[2 * n + 1]) if value == "nan" else found[2 * n + 1]
            assert (found[2 * n], read) == (kind, value), (reader, column)


def test_times_are_instants_in_microseconds_in_every_file(shared):
    publish(shared, table_of({"local": "TIMESTAMP"}), {"local": ("TIMESTAMP", "'2024-03-09'")})
    data = [f for f in shared.files() if f.suffix == ".parquet" and "_log" not in str(f)]
    assert data
    for file in data:
        for name in ("event_time", "local"):
            logical = str(pq.read_schema(file).field(name).type)
            assert logical == "timestamp[us, tz=UTC]", file


def test_partitions_that_are_hours_are_distinct_rows_by_texts(shared):
    made = Settings(data=shared.folder / "own", databases={"others": SecretStr(shared.setting)})
    table = table_of({}, partition="event_hour", is_hourly=True)
    with staged({}) as cursor, opened_target(made, "others") as target:
        target.prepare(cursor, table)
        for label in ("2024-03-09-05", "2024-03-09-06", "2024-03-09-05"):
            assert target.write(cursor, table, Part(START, END, 1, label)) == 1
    for reader, rows in shared.read("shop/values", "event_hour::VARCHAR").items():
        assert rows == [("2024-03-09-05",), ("2024-03-09-06",)], reader


def test_a_column_that_changes_its_type_is_refused(shared):
    publish(shared, table_of({"distance": "DOUBLE"}), {"distance": ("DOUBLE", "1")})
    changed = {"distance": ("VARCHAR", "'1 km'")}
    with pytest.raises(TargetError) as caught:
        publish(shared, table_of({"distance": "VARCHAR"}), changed)
    assert str(caught.value) == (
        "lake 'others': shop.values has columns of other types: 'distance' is DOUBLE, and VARCHAR "
        "is published; publish to another table, or cast: CAST(… AS …) AS …"
    )


def test_a_column_more_is_added_to_files_and_asked_for_in_tables(shared):
    publish(shared, table_of({}), {})
    more = table_of({"distance": "DOUBLE"})
    if shared.kind == "parquet":
        assert publish(shared, more, {"distance": ("DOUBLE", "1")}) == 1
        return
    with pytest.raises(TargetError) as caught:
        publish(shared, more, {"distance": ("DOUBLE", "1")})
    assert str(caught.value) == (
        "lake 'others': shop.values lacks columns; add them: ALTER TABLE shop.values ADD COLUMNS "
        '("distance" DOUBLE)'
    )


def test_a_column_may_not_have_the_name_of_the_partitions(shared):
    with pytest.raises(TargetError, match=r"is partitioned by 'Number', which is a column"):
        publish(shared, table_of({}, partition="Number"), {})


def test_rows_that_others_put_beside_are_counted(tmp_path):
    shared = local_lake("parquet", tmp_path)
    assert publish(shared, table_of({}), {}) == 1
    folder = tmp_path / "shop" / "values" / "event_date=2024-03-09"
    (folder / "others.parquet").write_bytes((folder / "part-0.parquet").read_bytes())
    assert publish(shared, table_of({}), {}) == 2


def test_a_table_of_iceberg_needs_a_namespace(tmp_path):
    shared = local_lake("iceberg", tmp_path)
    table = TargetTable(("values",), {"number": "BIGINT"}, ("number",), "replace", partition="d")
    with pytest.raises(TargetError, match=r"write others\.<namespace>\.values"):
        publish(shared, table, {})


@pytest.mark.parametrize(("kind", "package"), [("delta", "deltalake"), ("iceberg", "pyiceberg")])
def test_what_is_not_installed_is_named_with_the_way_to_get_it(
    tmp_path, monkeypatch, kind, package
):
    shared = local_lake(kind, tmp_path)
    plain = builtins.__import__

    def importing(name, *more, **named):
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named '{package}'", name=package)
        return plain(name, *more, **named)

    monkeypatch.setattr(builtins, "__import__", importing)
    said = rf"'others': {package} is not installed: pip install 'ml-platform\[{kind}\]'"
    with pytest.raises(TargetError, match=said):
        publish(shared, table_of({}), {})


@pytest.mark.parametrize("kind", ["parquet", "delta"])
def test_a_store_that_does_not_answer_is_unavailable_and_its_password_is_not_shown(tmp_path, kind):
    options = "key_id=key secret=hush-hush-7 region=us-east-1 endpoint=http://127.0.0.1:9"
    shared = SharedLake(kind, f"{kind}:s3://lakes/shop {options}", {}, tmp_path)
    with pytest.raises(TargetUnavailable) as caught:
        publish(shared, table_of({}), {})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("delta:shop", "database 'others': 'shop' is not an absolute path"),
        ("parquet:", "database 'others': does not say where it is: a folder, or a URL such as "
         "s3://bucket/folder"),
        ("delta:s3://lakes keyid=hush", "database 'others': no option 'keyid' of s3://lakes. Did "
         "you mean 'key_id'?"),
        ("parquet:gs://lakes", "database 'others': 'gs://' is not read; it may be s3://, az:// or "
         "a folder"),
        ("iceberg:warehouse=x", "database 'others': does not say where its catalog is: uri=… "
         "warehouse=…"),
    ],
)  # fmt: skip
def test_a_setting_that_says_no_place_is_refused(tmp_path, setting, said):
    shared = SharedLake("", setting, {}, tmp_path)
    with pytest.raises(TargetError) as caught:
        publish(shared, table_of({}), {})
    assert str(caught.value) == said
