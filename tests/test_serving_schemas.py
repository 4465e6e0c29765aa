"""What a schema says of a value by key is what DuckDB takes for the column's type."""

from collections.abc import Iterator
from typing import Any

import duckdb
import pytest
from jsonschema import Draft202012Validator

from ml_platform.features.keys import plain_text, read_value
from ml_platform.serving.http.schemas import sent_value
from ml_platform.sources.contract import type_names

NUMBERS = (1, 0, -1, 1.5, 127, 128, 255, 256, 70_000, 2**31, 2**63 - 1, 2**63, 1e5, 12345678.5)
TEXTS = ("1", "-1", "1.0", "1.5", "true", "abc", "", "2024-03-01")
TIMES = ("2024-03-01", "2024-03-01T12:00:00", "2024-03-01T12:00:00Z", "2024-03-01 12:00:00+02")


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


@pytest.mark.parametrize(
    "kind",
    [
        "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
        "UBIGINT", "FLOAT", "DOUBLE", "DECIMAL(10,2)", "DECIMAL(4,4)", "VARCHAR", "BOOLEAN",
    ],
)  # fmt: skip
def test_a_value_that_the_schema_allows_is_of_the_type_and_no_other(
    connection: duckdb.DuckDBPyConnection, kind: str
) -> None:
    values = (*NUMBERS, *TEXTS, True, False)
    allowed = [value for value in values if is_allowed(kind, value)]
    assert allowed == [value for value in values if is_of(connection, kind, value)]


@pytest.mark.parametrize("kind", ["TIMESTAMPTZ", "TIMESTAMP", "DATE", "UUID", "TIME"])
def test_what_is_written_as_text_is_no_number(
    connection: duckdb.DuckDBPyConnection, kind: str
) -> None:
    values = (*NUMBERS, True, False)
    assert not [v for v in values if is_allowed(kind, v) or is_of(connection, kind, v)]
    assert all(is_allowed(kind, text) for text in TIMES)


def is_allowed(kind: str, value: Any) -> bool:
    return bool(Draft202012Validator(sent_value(kind)).is_valid(value))


def is_of(connection: duckdb.DuckDBPyConnection, kind: str, value: Any) -> bool:
    """Whether DuckDB takes it."""
    text = plain_text(value)
    assert text is not None
    return read_value(connection, type_names(connection, {"column": kind})["column"], text)[1]
