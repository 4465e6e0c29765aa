"""Columns and types that a table has, against those that its source declares."""

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from types import MappingProxyType

from ml_platform.errors import LandingError
from ml_platform.spec.queries import TIMELIKE_TYPES

NOTHING = '"NULL"'
"""Type of a column of Arrow that has no value."""
OTHER = "OTHER"
"""Type of a column that Arrow has no type for, or that a driver cannot name: values are judged."""
BOOLEAN, BYTES, NUMBER, TEXT, TIME = "boolean", "bytes", "number", "text", "time"
FAMILIES = {
    "BOOLEAN": BOOLEAN, "BLOB": BYTES, "TIME": "time of day",
    **dict.fromkeys(("VARCHAR", "ENUM", "UUID", "JSON"), TEXT),
    **dict.fromkeys(("TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", *TIMELIKE_TYPES), TIME),
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
         "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL"), NUMBER,
    ),
}  # fmt: skip
"""Types whose values are cast to each other one by one, by what they are."""
TIMES_AS_TEXT = frozenset({(TEXT, TIME)})
"""What is found and what is declared, where that differs and values are judged one by one."""
IN_DATABASES = TIMES_AS_TEXT | {(BOOLEAN, NUMBER), (NUMBER, BOOLEAN)}
"""MySQL has numbers for truth values."""
AS_TEXT = IN_DATABASES | {(TEXT, kind) for kind in (BOOLEAN, BYTES, NUMBER, "time of day")}
"""A function may yield texts, as files have them."""
UNTYPED = IN_DATABASES | {(BYTES, kind) for kind in (BOOLEAN, NUMBER, TEXT, TIME, "time of day")}
"""SQLite has columns without a type."""


def require_columns(
    named: str,
    declared: Mapping[str, str],
    found: Mapping[str, str],
    judged: Collection[tuple[str, str]] = TIMES_AS_TEXT,
    taken: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """LandingError where a table lacks a declared column, or has it with a type of another kind.

    declared, found: columns with DuckDB types. judged: families that are found and declared whose
    values are judged row by row, as a number is that is to be another one. taken: columns that are
    not declared and were taken, with the types that they had.
    """
    there = {column.lower(): kind for column, kind in found.items()}
    differences = []
    for column, kind in declared.items():
        if column.lower() not in there:
            near = get_close_matches(column, found, 1, cutoff=0.5)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            differences.append(f"'{column}' {kind} is not there{hint}")
        elif not holds(there[column.lower()], kind, judged):
            differences.append(f"'{column}' is {there[column.lower()]}, and {kind} is declared")
    for column, kind in taken.items():
        now = there.get(column.lower())
        if now and not holds(now, kind):
            differences.append(f"'{column}' is {now}, and was {kind} when it was taken")
    if differences:
        columns = ", ".join(f"{column} {kind}" for column, kind in found.items())
        raise LandingError(
            f"{named} is not as it is declared: {'; '.join(differences)}. It has {columns}. "
            "Nothing is ingested before the declaration fits: correct `columns:` of the source, or "
            "the table"
        )


def stored_kind(kind: str) -> str:
    """The type under which the lake stores a column of a type: text, where it has no such type."""
    known = kind.partition("(")[0] in {*FAMILIES} - {"ENUM", "JSON"} and "[" not in kind
    return kind if known else "VARCHAR"


def holds(found: str, declared: str, judged: Collection[tuple[str, str]] = TIMES_AS_TEXT) -> bool:
    """Whether a column of a type may hold values of another one."""
    there, wanted = family(found), family(declared)
    return there in {wanted, NOTHING, OTHER} or (there, wanted) in judged


def family(kind: str) -> str:
    """What values of a DuckDB type are; the type itself where it is a family of its own."""
    return FAMILIES.get(kind.partition("(")[0], kind)
