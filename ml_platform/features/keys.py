"""Entities as text, one text for each, however their key's values are written.

What the text of a value is, DuckDB decides: the value cast to its column's type, that to VARCHAR.
"""

import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ml_platform.errors import ExampleRefused
from ml_platform.sources.contract import failed_sql, type_names, typed_sql
from ml_platform.spec.queries import literal, quote

BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64}
PLAIN_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
SHOWN = 60
"""Longest text of a caller that is repeated in an error."""
# Up to here a float holds every whole number.
EXACT = 1 << 53


def entity_text(parts: Iterable[str | None]) -> str | None:
    """The text of an entity from those of its key's values; None, as in SQL, if one has none.

    >>> entity_text(["EWR"]), entity_text(["UA", "1"]), entity_text(["U", "A1"])
    ('EWR', '2:UA1:1', '1:U2:A1')
    """
    texts = list(parts)
    if len(texts) == 1:
        return texts[0]
    # With its length in front, no value can pretend to be two.
    return None if None in texts else "".join(f"{len(t)}:{t}" for t in texts if t is not None)


def entity_parts(text: str, count: int) -> list[str]:
    """The texts of an entity's key values, of which there are so many; as `entity_text` joins them.

    >>> entity_parts("EWR", 1), entity_parts("2:UA1:1", 2)
    (['EWR'], ['UA', '1'])
    """
    if count == 1:
        return [text]
    parts = []
    while text:
        length, _, rest = text.partition(":")
        parts.append(rest[: int(length)])
        text = rest[int(length) :]
    return parts


def key_sql(column: str) -> str:
    """SQL for the text of a key's value."""
    return f"CAST({quote(column)} AS VARCHAR)"


def plain_text(value: Any) -> str | None:
    """A Python value as it would stand in a landing file; None for None, NaN and NaT.

    Raises TypeError for what is not a single value, ValueError for what is no text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    text: str | None = None
    match value:
        case str() if not _is_text(value):
            raise ValueError(f"{value[:SHOWN]!a} is not text")
        case str():
            text = value
        case bool():
            text = str(value).lower()
        case int():
            text = str(value)
        case float():
            text = None if math.isnan(value) else repr(value)
        case Decimal():
            text = None if value.is_nan() else f"{value:f}"
        case datetime():
            text = None if value is pd.NaT else value.isoformat(" ")
        case date():
            text = value.isoformat()
        case _ if value is not None and value is not pd.NA:
            raise TypeError(f"{type(value).__name__} is not a single value")
    return text


class KeyTexts:
    """Texts of the values of columns; those that need no thought are made without a query.

    types: DuckDB types of the columns. Threads may share one.
    """

    def __init__(self, types: Mapping[str, str], timezone: str) -> None:
        self._lock = threading.Lock()
        self._connection = duckdb.connect(config={"threads": 1})
        self._connection.execute(f"SET TimeZone = {literal(timezone)}")
        self._types = type_names(self._connection, types)

    def close(self) -> None:
        self._connection.close()

    def of(self, column: str, values: Sequence[Any]) -> list[str | None]:
        """The text of each value of a column; None for values that are missing.

        Raises ExampleRefused for a value that is not of the column's type.
        """
        kind = self._types[column]
        texts = [_quick_text(value, kind) for value in values]
        slow = [i for i, text in enumerate(texts) if text is None and values[i] is not None]
        if slow:
            with self._lock:
                for i in slow:
                    texts[i] = self._cast(column, kind, values[i])
        return texts

    def _cast(self, column: str, kind: str, value: Any) -> str | None:
        try:
            given = plain_text(value)
        except (TypeError, ValueError) as error:
            raise ExampleRefused(column, str(error)) from None
        if given is None:
            return None
        text, fits = read_value(self._connection, kind, given)
        if not fits:
            raise ExampleRefused(column, f"'{given[:SHOWN]}' is not {kind}")
        return text


def read_value(
    connection: duckdb.DuckDBPyConnection, kind: str, given: str
) -> tuple[str | None, bool]:
    """The text of a value that stands in a file as `given`, and whether it is of the type."""
    text, failed = connection.execute(
        f"SELECT CAST(typed AS VARCHAR), {failed_sql('given', 'typed', kind)} "
        f"FROM (SELECT given, {typed_sql('given', kind)} AS typed "
        # Not as a literal: a text may hold a NUL, which ends a statement.
        "FROM (SELECT CAST($1 AS VARCHAR) AS given))",
        [given],
    ).fetchall()[0]
    return text, not failed


def _quick_text(value: Any, kind: str) -> str | None:
    """The text of a value of the type's own kind; None where DuckDB has to be asked."""
    if kind == "VARCHAR":
        return value if type(value) is str and _is_text(value) else None
    if kind in BITS:
        return _whole_number(value, BITS[kind])
    if kind == "BOOLEAN" and type(value) is bool:
        return "true" if value else "false"
    if kind == "DATE" and type(value) is date:
        return value.isoformat()
    return None


def _is_text(value: str) -> bool:
    # Half of a surrogate pair, which JSON can spell, is a str to Python and text to no one else.
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)


def _whole_number(value: Any, bits: int) -> str | None:
    if isinstance(value, str):
        number = int(value) if PLAIN_NUMBER.fullmatch(value) else None
    elif isinstance(value, float):
        number = int(value) if value.is_integer() and abs(value) < EXACT else None
    elif isinstance(value, int | np.integer) and not isinstance(value, bool):
        number = int(value)
    else:
        number = None
    fits = number is not None and -(1 << (bits - 1)) <= number < 1 << (bits - 1)
    return str(number) if fits else None
