"""Rows of sources as they were known at a moment."""

from dataclasses import dataclass
from functools import cached_property

import duckdb

from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase, version_table
from ml_platform.storage import Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.tables import WINDOW_START


@dataclass(frozen=True)
class KnownVersions:
    """The versions that the lake keeps of a use case's rows, read through one cursor."""

    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    use_case: UseCase
    snapshot: int | None

    @cached_property
    def tables(self) -> frozenset[str]:
        """Tables that may hold versions; none where nothing was ever corrected."""
        # Asked before every computation: the catalog itself answers in half the time that DuckDB's
        # own list of tables takes.
        rows = self.cursor.execute(
            f"""SELECT t.table_name FROM {METADATA}.ducklake_table t
            JOIN {METADATA}.ducklake_schema s ON s.schema_id = t.schema_id
            WHERE s.schema_name = {literal(self.use_case.name)}
            AND t.table_name LIKE {literal(version_table("%"))}
            AND t.end_snapshot IS NULL AND s.end_snapshot IS NULL"""
        ).fetchall()
        return frozenset(name for (name,) in rows)

    def sql(self, table: str, where: str) -> str | None:
        """SQL of the versions of a table's rows; None where none of them was corrected.

        where: predicate on `window_start`.
        """
        name = version_table(table)
        if name not in self.tables:
            return None
        at = "" if self.snapshot is None else f" AT (VERSION => {self.snapshot:d})"
        relation = f"(FROM lake.{quote(self.use_case.name)}.{quote(name)}{at} WHERE {where})"
        try:
            row = self.cursor.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchone()
        except (duckdb.CatalogException, duckdb.BinderException):
            # The snapshot is from before the first correction.
            return None
        return relation if row else None

    def source_sql(self, source: str, where: str, at: str | None) -> str:
        """SQL of a source's rows in the versions that were known at a moment.

        Of what was not known yet then the first version is shown: whether to use it says
        `known_at`.
        where: predicate on `window_start`; at: SQL of the moment, which may name columns of the
        row; None for what the source says now.
        """
        rows = self.lake.relation(self.cursor, self.use_case.name, source, self.snapshot)
        versions = self.sql(source, where) if at else None
        if versions is None:
            return rows
        names = ", ".join(
            quote(column) for column in (WINDOW_START, *source_table(self.use_case, source).columns)
        )
        key = ", ".join((WINDOW_START, *map(quote, self.use_case.sources[source].key)))
        earliest = f"min({KNOWN_FROM}) OVER (PARTITION BY {key})"
        first = f"{KNOWN_FROM} = known_at AND {KNOWN_FROM} = {earliest}"
        return f"""(SELECT {names} FROM {rows} ANTI JOIN {versions} USING ({key}) WHERE {where}
            UNION ALL
            SELECT {names} FROM (SELECT *, {first} AS __first FROM {versions})
            WHERE (__first OR {KNOWN_FROM} <= {at})
            AND ({KNOWN_UNTIL} IS NULL OR {KNOWN_UNTIL} > {at}))"""
