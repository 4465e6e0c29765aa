"""Values that arrive in a table of others as they were, or are refused."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ml_platform.errors import TargetError
from ml_platform.publish.opening import opened_target
from ml_platform.publish.target import Part, TargetTable
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.storage.tables import naive_utc
from tests.database_servers import Database

START, END = (naive_utc(datetime(2024, 3, day, tzinfo=UTC)) for day in (9, 10))
ODD_TEXTS = (
    "", " ", "a 'quoted' \"word\"", "back\\slash \\N \\t", "tab\tline\nreturn\r", "NULL",
    "ünïcode 🚲", "%s {0} ; -- x", "\\", "'", "''", "\x01",
)  # fmt: skip
ODD_NUMBERS = (0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 1e22, 123456789.12345678, -2.5e-10)


@contextmanager
def staged(
    types: dict[str, str], rows: list[tuple[Any, ...]]
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Rows to publish of one partition; the first two columns, number and time, are added."""
    columns = {"number": "BIGINT", "event_time": "TIMESTAMP WITH TIME ZONE", **types}
    listed = ", ".join(f"{quote(name)} {kind}" for name, kind in columns.items())
    with closing(duckdb.connect()) as connection:
        connection.execute("SET TimeZone = 'America/New_York'")
        connection.execute(f"CREATE TEMP TABLE __published (window_start TIMESTAMP, {listed})")
        places = ", ".join("?" for _ in types)
        for number, row in enumerate(rows):
            connection.execute(
                f"INSERT INTO __published VALUES (TIMESTAMP '{START}', {number}, "
                f"TIMESTAMPTZ '2024-03-09 12:00:00.123456Z'{', ' if types else ''}{places})",
                list(row),
            )
        yield connection


def published(
    database: Database, name: str, types: dict[str, str], rows: list[tuple[Any, ...]], **more: Any
) -> int:
    columns = {"number": "BIGINT", "event_time": "TIMESTAMP WITH TIME ZONE", **types}
    table = TargetTable((name,), columns, ("number", "event_time"), "replace", **more)
    made = Settings(databases={"others": SecretStr(database.setting)})
    with staged(types, rows) as cursor, opened_target(made, "others") as target:
        target.prepare(cursor, table)
        return target.write(cursor, table, Part(START, END, len(rows), "2024-03-09"))


def test_odd_texts_arrive_letter_by_letter(database):
    rows = [(text,) for text in (*ODD_TEXTS, None)]
    assert published(database, "texts", {"said": "VARCHAR"}, rows) == len(rows)
    assert database.run("SELECT said FROM texts ORDER BY number") == rows


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(
    texts=st.lists(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=80),
        min_size=1,
        max_size=40,
    )
)
def test_any_texts_arrive_letter_by_letter(database, texts):
    rows = [(text,) for text in texts]
    assert published(database, "any_texts", {"said": "VARCHAR"}, rows) == len(rows)
    assert database.run("SELECT said FROM any_texts ORDER BY number") == rows


def test_numbers_arrive_to_the_bit(database):
    rows = [(number,) for number in (*ODD_NUMBERS, None)]
    published(database, "numbers", {"measured": "DOUBLE"}, rows)
    found = database.run("SELECT measured FROM numbers ORDER BY number")
    assert [repr(value) for (value,) in found] == [repr(value) for (value,) in rows]


def test_every_type_arrives(database):
    types = {
        "yes": "BOOLEAN", "small": "TINYINT", "large": "BIGINT", "exact": "DECIMAL(18,3)",
        "huge": "HUGEINT", "day": "DATE", "local": "TIMESTAMP", "raw": "BLOB", "id": "UUID",
        "kind": "ENUM('a', 'b')",
    }  # fmt: skip
    row = (
        True, -128, -(2**63), "12.345", 2**100, "2024-02-29", "2024-03-09 23:59:59.999999",
        b"\x00\xff'\\", "00000000-0000-0000-0000-000000000001", "b",
    )  # fmt: skip
    published(database, "types", types, [row, (None,) * len(row)])
    (found, missing) = database.run(f"SELECT {', '.join(types)} FROM types ORDER BY number")
    assert missing == (None,) * len(row)
    shown = [
        bool(found[0]),
        *found[1:3],
        *map(str, found[3:7]),
        bytes(found[7]),
        *map(str, found[8:]),
    ]
    assert shown == [
        True, -128, -(2**63), "12.345", str(2**100), "2024-02-29", "2024-03-09 23:59:59.999999",
        b"\x00\xff'\\", "00000000-0000-0000-0000-000000000001", "b",
    ]  # fmt: skip


def test_times_are_utc_to_the_microsecond(database):
    published(database, "times", {}, [()])
    ((time,),) = database.run("SELECT event_time FROM times")
    assert str(time).removesuffix("+00:00") == "2024-03-09 12:00:00.123456"


def test_keys_that_differ_in_case_are_two_rows(database):
    table = TargetTable(
        ("cases",), {"name": "VARCHAR", "event_time": "TIMESTAMP WITH TIME ZONE"},
        ("name", "event_time"), "replace", {"name": 20},
    )  # fmt: skip
    made = Settings(databases={"others": SecretStr(database.setting)})
    with closing(duckdb.connect()) as cursor, opened_target(made, "others") as target:
        cursor.execute(
            f"""CREATE TEMP TABLE __published AS SELECT TIMESTAMP '{START}' AS window_start, name,
            TIMESTAMPTZ '2024-03-09 12:00:00Z' AS event_time
            FROM (VALUES ('Ada'), ('ada'), ('adä')) AS v(name)"""
        )
        target.prepare(cursor, table)
        assert target.write(cursor, table, Part(START, END, 3, "2024-03-09")) == 3


def test_a_text_that_is_too_long_is_refused_and_nothing_is_written(database):
    published(database, "lengths", {"said": "VARCHAR"}, [("short",)], lengths={"said": 8})
    with pytest.raises(
        TargetError, match=r"(?i)database 'others': .*(too long|CHECK const)"
    ) as caught:
        published(database, "lengths", {"said": "VARCHAR"}, [("too long a text",)])
    assert "\n" not in str(caught.value)
    assert database.run("SELECT said FROM lengths") == [("short",)]


def test_nan_and_infinity_are_kept_or_refused_by_name(database):
    rows = [(float("nan"),), (float("inf"),)]
    if database.kind == "postgres":
        published(database, "odd", {"measured": "DOUBLE"}, rows)
        found = database.run("SELECT measured FROM odd ORDER BY number")
        assert [str(value) for (value,) in found] == ["nan", "inf"]
        return
    with pytest.raises(TargetError, match="2 rows have one in 'measured'"):
        published(database, "odd", {"measured": "DOUBLE"}, rows)
    assert database.run("SELECT * FROM odd") == []
