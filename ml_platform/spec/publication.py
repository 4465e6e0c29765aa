"""What a use case declares of the tables of others that its predictions are published to."""

from typing import Annotated, Literal

from pydantic import Field

from ml_platform.spec.declared import FILLED_IN, Declared, Entity, Text

PORTABLE = frozenset(
    {
        "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
        "UINTEGER", "UBIGINT", "FLOAT", "DOUBLE", "VARCHAR", "JSON", "UUID", "BLOB", "DATE", "TIME",
        "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP WITH TIME ZONE",
    }
)  # fmt: skip
"""DuckDB types that a column of any database can hold; besides DECIMAL and ENUM."""
Mode = Literal["replace", "upsert", "append"]


class Publication(Declared):
    """A table of a database of others that predictions are published to."""

    table: Text
    """`<database>.<schema>.<table>` or `<database>.<table>`; a setting says where it is."""
    mode: Mode = "replace"
    """Whether a partition replaces what the table holds of its event times, its rows are updated by
    key, or they are added to what is there."""
    columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """SQL select items over the prediction and its example; by default entity, event time,
    prediction and model version."""
    key: Entity | None = None
    """Columns that name a row; by default entity and event time."""
    lengths: dict[Text, Annotated[int, Field(ge=1, le=16383)]] = {}
    """Longest text of a column, in characters."""
    items: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """The select items, defaults included. Filled in by the loader, as is what follows."""
    types: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Columns of the table, with DuckDB types."""
    keyed_by: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """The key, its default included."""
    reads_example: bool = Field(default=False, exclude=True, validation_alias=FILLED_IN)
    """Whether columns of the example are published too."""

    @property
    def database(self) -> str:
        """Name of the database in the setting `databases`."""
        return self.table.partition(".")[0]

    @property
    def path(self) -> tuple[str, ...]:
        """Schema, where one is named, and table."""
        return tuple(self.table.split(".")[1:])


def is_portable(kind: str) -> bool:
    """Whether a column of any database can hold values of a DuckDB type.

    >>> is_portable("DECIMAL(18,3)"), is_portable("MAP(VARCHAR, DOUBLE)")
    (True, False)
    """
    return not kind.endswith("]") and (kind in PORTABLE or kind.startswith(("DECIMAL(", "ENUM(")))
