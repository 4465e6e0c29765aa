"""What a use case declares of the tables of others that it publishes to."""

from typing import Annotated, Literal

from pydantic import Field

from ml_platform.spec.declared import FILLED_IN, Declared, Entity, Name, Text

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
    """A table of a database or lake of others that predictions or features are published to."""

    table: Text
    """`<database>.<schema>.<table>` or `<database>.<table>`; a setting says where it is."""
    features: Name | None = None
    """The feature view whose rows are published; by default predictions are."""
    mode: Mode = "replace"
    """Whether a partition replaces what the table holds of its event times, its rows are updated by
    key, or they are added to what is there."""
    columns: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    """SQL select items over the prediction and its example; by default entity, event time,
    prediction and model version. Of a feature view, over its rows; by default all columns."""
    key: Entity | None = None
    """Columns that name a row; by default entity and event time."""
    lengths: dict[Text, Annotated[int, Field(ge=1, le=16383)]] = {}
    """Longest text of a column, in characters."""
    partition: Text | None = None
    """Column by which a lake's table distinguishes partitions, with the day, or the hour in UTC,
    that each begins with; by default `event_date`, or `event_hour`."""
    items: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """The select items, defaults included. Filled in by the loader, as is what follows."""
    types: dict[str, str] = Field(default={}, exclude=True, validation_alias=FILLED_IN)
    """Columns of the table, with DuckDB types."""
    keyed_by: tuple[str, ...] = Field(default=(), exclude=True, validation_alias=FILLED_IN)
    """The key, its default included."""
    reads_example: bool = Field(default=False, exclude=True, validation_alias=FILLED_IN)
    """Whether columns of the example are published too."""
    reads: str = Field(default="predictions", exclude=True, validation_alias=FILLED_IN)
    """The platform's table whose rows are published."""

    @property
    def not_declared(self) -> set[str]:
        """Fields that say nothing of this publication, and are no part of its digest."""
        return {name for name in ("features", "partition") if getattr(self, name) is None}

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
