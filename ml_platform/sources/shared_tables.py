"""What tables of lakes that others own have in common: their files, columns and types."""

from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Protocol

import duckdb

from ml_platform.errors import LakeUnavailable, LandingError, PlatformError
from ml_platform.failures import failure_of, is_of_a_store
from ml_platform.settings import Settings
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import Listed
from ml_platform.sources.reading import Batch, Reading
from ml_platform.spec.queries import TIMELIKE_TYPES

TEXT, TIME = "text", "time"
FAMILIES = {
    "BOOLEAN": "boolean", "VARCHAR": TEXT, "BLOB": "bytes", "TIME": "time of day",
    **dict.fromkeys(("TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", *TIMELIKE_TYPES), TIME),
    **dict.fromkeys(
        ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
         "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DECIMAL"), "number",
    ),
}  # fmt: skip
"""Types whose values are cast to each other one by one, by what they are."""


class SharedTable(Protocol):
    """One table of a lake, in the state that it had when it was opened."""

    @property
    def files(self) -> Sequence[Listed]:
        """Its data files, by name; they are never written to again."""

    @property
    def committed_us(self) -> int:
        """When it came into this state, in microseconds since 1970."""

    def read(self, reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
        """Every row of some of its files that is not deleted, once.

        Raises LandingError where one cannot be read: a table is read as a whole or not at all, and
        its files never change, so that none would be looked at again. LakeUnavailable where their
        store does not answer.
        """


def require_columns(named: str, declared: Mapping[str, str], found: Mapping[str, str]) -> None:
    """LandingError where a table lacks a declared column, or has it with a type of another kind.

    declared, found: columns with DuckDB types. A text may hold the times that are declared: it is
    judged row by row, as a number is that is to be another one.
    """
    there = {column.lower(): kind for column, kind in found.items()}
    differences = []
    for column, kind in declared.items():
        if column.lower() not in there:
            near = get_close_matches(column, found, 1, cutoff=0.5)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            differences.append(f"'{column}' {kind} is not there{hint}")
        elif not _holds(there[column.lower()], kind):
            differences.append(f"'{column}' is {there[column.lower()]}, and {kind} is declared")
    if differences:
        columns = ", ".join(f"{column} {kind}" for column, kind in found.items())
        raise LandingError(
            f"{named} is not as it is declared: {'; '.join(differences)}. It has {columns}. "
            "Nothing is ingested before the declaration fits"
        )


def table_error(error: Exception, settings: Settings, what: str) -> PlatformError:
    """What a library raises of a table, or of the store that it is in: one line, no password."""
    # What is of a store need not have a module of its library.
    known = error if is_of_a_store(error) else LandingError(str(error))
    failure = failure_of(known, settings)
    kind = LakeUnavailable if failure.kind == "unavailable" else LandingError
    return kind(f"{what}: {failure}")


def types_of(cursor: duckdb.DuckDBPyConnection, columns: object) -> dict[str, str]:
    """DuckDB's types of an Arrow schema's columns."""
    cursor.register("__schema", columns.empty_table())  # type: ignore[attr-defined]
    rows = cursor.execute("DESCRIBE FROM __schema").fetchall()
    cursor.unregister("__schema")
    return {name: kind for name, kind, *_ in rows}


def _holds(found: str, declared: str) -> bool:
    there, wanted = _family(found), _family(declared)
    return there == wanted or (there, wanted) == (TEXT, TIME)


def _family(kind: str) -> str:
    return FAMILIES.get(kind.partition("(")[0], kind)
