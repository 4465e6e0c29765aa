"""Texts of entities: however a value is written, the text is the one DuckDB makes of it."""

import datetime as dt
import math
from collections.abc import Iterator
from decimal import Decimal

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.errors import ExampleRefused
from ml_platform.features.keys import KeyTexts, entity_text
from tests.examples import at_most

ZONE = "America/New_York"
WHOLE = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
TYPES = {
    **{kind: kind for kind in WHOLE},
    "VARCHAR": "VARCHAR", "BOOLEAN": "BOOLEAN", "DATE": "DATE", "DECIMAL": "DECIMAL(12, 3)",
    "TIMESTAMP": "TIMESTAMP", "TIMESTAMPTZ": "TIMESTAMPTZ", "DOUBLE": "DOUBLE", "UUID": "UUID",
    "UBIGINT": "UBIGINT", "HUGEINT": "HUGEINT", "INT": "INT",
}  # fmt: skip
TIMES = st.datetimes(
    dt.datetime.fromisoformat("1900-01-01"), dt.datetime.fromisoformat("2200-01-01")
)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "VARCHAR": st.text(st.characters(exclude_categories=["Cs"])),
    "BOOLEAN": st.booleans(),
    "DATE": st.dates(dt.date(1900, 1, 1), dt.date(2200, 1, 1)),
    "DECIMAL": st.decimals(-(10**8), 10**8, places=3),
    "TIMESTAMP": TIMES,
    "TIMESTAMPTZ": TIMES.map(lambda time: time.replace(tzinfo=dt.UTC)),
    "DOUBLE": st.floats(allow_nan=False, allow_infinity=False),
    **{kind: st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) for kind, bits in WHOLE.items()},
}


@pytest.fixture(scope="module")
def texts() -> Iterator[KeyTexts]:
    texts = KeyTexts(TYPES, ZONE)
    yield texts
    texts.close()


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = '{ZONE}'")
        yield connection


@pytest.mark.parametrize("kind", VALUES)
def test_the_text_of_a_value_is_duckdbs(
    texts: KeyTexts, connection: duckdb.DuckDBPyConnection, kind: str
) -> None:
    @settings(max_examples=at_most(60), deadline=None)
    @given(value=VALUES[kind])
    def check(value: object) -> None:
        found = connection.execute(
            f"SELECT CAST(CAST(? AS {TYPES[kind]}) AS VARCHAR)", [value]
        ).fetchone()
        assert found is not None
        assert texts.of(kind, [value]) == [found[0]]
        # As it comes back from a table, and written as text.
        assert texts.of(kind, [found[0]]) == [found[0]]

    check()


@pytest.mark.parametrize(
    ("kind", "written", "text"),
    [
        ("BIGINT", [7, "7", 7.0, np.int64(7), np.float64(7), "007", " 7", "7.0"], "7"),
        ("INT", ["-3", -3, np.int8(-3)], "-3"),
        ("VARCHAR", [7, "7"], "7"),
        ("BOOLEAN", [True, "true", "TRUE", 1, np.True_, "t"], "true"),
        ("DATE", [dt.date(2024, 3, 1), "2024-03-01", pd.Timestamp("2024-03-01")], "2024-03-01"),
        ("DECIMAL", [Decimal("1.5"), 1.5, "1.50", "1.500"], "1.500"),
        (
            "TIMESTAMPTZ",
            [
                "2024-03-01 07:00:00",
                "2024-03-01T12:00:00Z",
                dt.datetime(2024, 3, 1, 12, tzinfo=dt.UTC),
                pd.Timestamp("2024-03-01 07:00", tz=ZONE),
            ],
            "2024-03-01 07:00:00-05",
        ),
        ("UUID", ["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"], "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ("UBIGINT", [2**64 - 1, str(2**64 - 1)], str(2**64 - 1)),
        ("HUGEINT", [2**64], str(2**64)),
    ],
)
def test_ways_to_write_a_value_have_one_text(
    texts: KeyTexts, kind: str, written: list[object], text: str
) -> None:
    assert texts.of(kind, written) == [text] * len(written)


def test_missing_values_have_no_text(texts: KeyTexts) -> None:
    missing = [None, math.nan, pd.NaT, pd.NA, Decimal("NaN"), np.float64("nan")]
    for kind in TYPES:
        assert texts.of(kind, missing) == [None] * len(missing)


@pytest.mark.parametrize(
    ("kind", "value", "problem"),
    [
        ("BIGINT", "seven", "BIGINT: 'seven' is not BIGINT"),
        ("BIGINT", 7.5, "'7.5' is not BIGINT"),
        ("TINYINT", 300, "'300' is not TINYINT"),
        ("INT", True, "'true' is not INTEGER"),
        ("DATE", "2024-02-30", "'2024-02-30' is not DATE"),
        ("VARCHAR", ["a"], "list is not a single value"),
        ("VARCHAR", "\ud800", "is not text"),
        ("BIGINT", {}, "dict is not a single value"),
    ],
)
def test_a_value_of_another_type_is_refused(
    texts: KeyTexts, kind: str, value: object, problem: str
) -> None:
    with pytest.raises(ExampleRefused, match=problem) as caught:
        texts.of(kind, [value])
    assert caught.value.column == kind


@settings(deadline=None)
@given(
    st.lists(st.text(), min_size=1, max_size=3),
    st.lists(st.text(), min_size=1, max_size=3),
)
def test_entities_of_one_key_are_the_same_only_where_all_values_are(
    one: list[str], other: list[str]
) -> None:
    assert (entity_text(one) == entity_text(other)) == (one == other) or len(one) != len(other)


def test_an_entity_with_a_missing_value_is_none() -> None:
    assert entity_text([None]) is None
    assert entity_text(["a", None]) is None
    assert entity_text([""]) == ""
