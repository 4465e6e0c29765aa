"""Which columns of a table or a function are read: what is declared, and what is taken besides."""

from collections.abc import Collection, Mapping

import duckdb

from ml_platform.sources.column_types import require_columns, stored_kind
from ml_platform.sources.tables import source_table
from ml_platform.spec.checks import IN_SOURCES
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase

NOT_TAKEN = IN_SOURCES | {"known_at"}
"""Columns of such names mean something in every source."""


class SourceColumns:
    """Columns of one source, decided once for all that is read of it at a time."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        use_case: UseCase,
        source: str,
        types: Mapping[str, str],
        judged: Collection[tuple[str, str]],
    ) -> None:
        """types: DuckDB's names of those that are declared; judged: as `require_columns` has it."""
        self._cursor, self._types, self._judged = cursor, types, judged
        self._use_case, self._name = use_case, source
        self._source = use_case.sources[source]
        self._taken: dict[str, str] | None = None
        self.ignored: tuple[str, ...] = ()
        """Columns that are neither declared nor taken, once rows were read."""

    @property
    def use_case(self) -> UseCase:
        """The use case with the columns that were taken among those of the source."""
        columns = {**self._source.columns, **(self._taken or {})}
        source = self._source.model_copy(update={"columns": columns})
        sources = {**self._use_case.sources, self._name: source}
        return self._use_case.model_copy(update={"sources": sources})

    @property
    def stored(self) -> tuple[str, ...]:
        """Columns that are stored: those that are declared, and those that were taken."""
        return (*self._source.columns, *(self._taken or {}))

    def choose(self, takes_all: bool, found: Mapping[str, str]) -> dict[str, str]:
        """Columns to read, by name as they are found; LandingError where they do not fit."""
        named = f"{self._use_case.name}/{self._name}: {self._source.rows_of}"
        if self._taken is None:
            stored = self._stored_besides()
            require_columns(named, self._types, found, self._judged, stored)
            self._taken = self._take(found, stored)
        require_columns(named, {**self._types, **self._taken}, found, self._judged)
        there = {name.lower(): name for name in found}
        needed = (*self._source.key, str(self._source.high_water), self._source.event_time)
        wanted = self.stored if takes_all else dict.fromkeys(needed)
        return {column: there[column.lower()] for column in wanted}

    def _take(self, found: Mapping[str, str], stored: Mapping[str, str]) -> dict[str, str]:
        """Columns that are not declared and are stored nevertheless; the others are noted."""
        declared = {column.lower() for column in self._source.columns}
        added = {name: kind for name, kind in found.items() if name.lower() not in declared}
        taken = {}
        if self._source.added_columns == "take":
            for name, kind in added.items():
                # Storage has columns of its own, and two names may differ in their case alone.
                alike = [each for each in found if each.lower() == name.lower()]
                if name.lower() not in NOT_TAKEN and len(alike) == 1 and name[:2] != "__":
                    taken[name] = stored.get(name.lower()) or stored_kind(kind)
        self.ignored = tuple(name for name in added if name not in taken)
        return taken

    def _stored_besides(self) -> dict[str, str]:
        """Types of columns that the lake has of the source, by name in lower case, undeclared."""
        table = source_table(self._use_case, self._name)
        if self._source.added_columns == "ignore":
            return {}
        rows = self._cursor.execute(
            f"""SELECT lower(column_name), data_type FROM duckdb_columns()
            WHERE database_name = 'lake' AND schema_name = {literal(table.schema)}
            AND table_name = {literal(table.name)}"""
        ).fetchall()
        known = {column.lower() for column in (*table.columns, *NOT_TAKEN)}
        return {name: kind for name, kind in rows if name not in known}
