"""The entity that is to be erased: values of key columns, as a person names them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from ml_platform.errors import ErasureRefused
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import unknown

SHORTEST = 6
"""So many letters are needed to be found in bytes of which nobody says what they are."""


@dataclass(frozen=True)
class Entity:
    """Key columns with their values; it never shows these."""

    values: Mapping[str, str]
    kinds: Mapping[str, str]
    """DuckDB types of the columns, as the use case declares them."""

    def __repr__(self) -> str:
        return f"Entity({', '.join(self.values)})"

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.values)

    @property
    def is_distinctive(self) -> bool:
        """Whether bytes in which its values stand are of it, and not of others by chance."""
        return all(len(value) >= SHORTEST for value in self.values.values())

    def is_named_in(self, text: str) -> bool:
        """Whether a text has one of the values in it, as a word of its own."""
        return any(re.search(rf"(?<!\w){re.escape(v)}(?!\w)", text) for v in self.values.values())


def key_columns(use_case: UseCase) -> dict[str, str]:
    """Columns that an entity can be named by, with types: keys of sources, views and examples."""
    types = {c: kind for source in use_case.sources.values() for c, kind in source.columns.items()}
    named = [
        *(column for source in use_case.sources.values() for column in source.key),
        *(column for view in use_case.features.values() for column in view.entity),
        *use_case.examples.entity,
    ]
    return {column: types[column] for column in named if column in types}


def named_entity(use_case: UseCase, pairs: Iterable[str]) -> Entity:
    """The entity that `column=value` texts name.

    Raises ErasureRefused for a column that is no key and for a value that is not of its type.
    """
    values: dict[str, str] = {}
    declared = key_columns(use_case)
    for pair in pairs:
        column, equals, value = pair.partition("=")
        if not equals or not value:
            raise ErasureRefused("an entity is named by column=value, as customer_id=42")
        if column not in declared:
            known = ", ".join(declared)
            raise ErasureRefused(
                f"{use_case.name}: {unknown('key column', column, declared)}; declared: {known}"
            )
        if column in values:
            raise ErasureRefused(f"{column} is given twice; an entity has one value of each key")
        values[column] = value
    if not values:
        raise ErasureRefused("name the entity, as --entity customer_id=42")
    with duckdb.connect() as connection:
        for column, value in values.items():
            kind = declared[column]
            row = connection.execute(
                f"SELECT TRY_CAST({literal(value)} AS {kind}) IS NULL"
            ).fetchone()
            if row == (True,):
                raise ErasureRefused(f"{column} is {kind}, and the value given is none")
    return Entity(values, {column: declared[column] for column in values})
