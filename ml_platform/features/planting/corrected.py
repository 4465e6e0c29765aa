"""Rows of a copied source that are corrected late, stored as ingesting them would have."""

from datetime import datetime

import duckdb

from ml_platform.features.planting.copies import COMMIT, Copy
from ml_platform.features.views import inside_sql, instant, windows_sql
from ml_platform.sources.tables import source_table, versions_table
from ml_platform.spec.lineage import columns_read
from ml_platform.spec.queries import is_time, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import replace_windows
from ml_platform.storage.tables import WINDOW_START

ONE_OF = 7


def correct(copied: Copy, source: str, before: Window, arrival: datetime) -> None:
    """Give every seventh row of a range the values of another one, known from a moment on.

    Keys, times and entities stay. Rows that are not known by that moment are no corrected ones.
    """
    use_case = copied.use_case
    columns = _changeable(use_case, source)
    if not columns:
        return
    with copied.lake.cursor(use_case.timezone) as cursor:
        _select(cursor, use_case, source, columns, before, arrival)
        key = _key(use_case, source)
        rows = source_table(use_case, source)
        inside = f"(FROM {rows.sql} WHERE {windows_sql(use_case, before)})"
        versions = f"""SELECT *, known_at AS {KNOWN_FROM}, {instant(arrival)} AS {KNOWN_UNTIL}
            FROM {inside} SEMI JOIN temp.__corrected USING ({key})
            UNION ALL BY NAME
            SELECT *, {instant(arrival)} AS {KNOWN_FROM}, NULL AS {KNOWN_UNTIL}
            FROM temp.__corrected"""
        corrected = f"""SELECT * FROM {inside} ANTI JOIN temp.__corrected USING ({key})
            UNION ALL BY NAME FROM temp.__corrected"""
        # Versions first: they are made of the rows as they were.
        for table, query in ((versions_table(use_case, source), versions), (rows, corrected)):
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE __written AS {query}")
            names = ", ".join(map(quote, table.columns))
            replace_windows(
                copied.lake, cursor, table, f"SELECT {names} FROM temp.__written",
                time=use_case.sources[source].event_time, calendar=use_case.calendar,
                window_range=before, commit=COMMIT,
            )  # fmt: skip


def _select(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    columns: tuple[str, ...],
    before: Window,
    arrival: datetime,
) -> None:
    """The rows to correct in `temp.__corrected`, as they come to be."""
    declared, rows = use_case.sources[source], source_table(use_case, source)
    number = f"hash({', '.join(map(quote, declared.key))})"
    values = ", ".join(
        f"lead({name}, 1, {name}) OVER (ORDER BY {number}) AS {name}"
        for name in map(quote, columns)
    )
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __corrected AS
        SELECT c.* FROM (SELECT * REPLACE ({values}) FROM {rows.sql}
            WHERE {windows_sql(use_case, before)} AND {inside_sql(before, declared.event_time)}
            AND known_at < {instant(arrival)} AND {number} % {ONE_OF} = 0) c
        JOIN {rows.sql} r USING ({_key(use_case, source)})
        WHERE row({_of("c", columns)}) IS DISTINCT FROM row({_of("r", columns)})"""
    )


def _changeable(use_case: UseCase, source: str) -> tuple[str, ...]:
    """Columns whose values can be those of another row: no keys, times or entities."""
    declared = use_case.sources[source]
    if not declared.key:
        return ()
    entities = {name for view in use_case.features.values() for name in view.entity}
    fixed = {*declared.key, *entities, *use_case.examples.entity}
    fixed |= {*columns_read([declared.known_at_sql], declared.columns)}
    return tuple(
        name for name, kind in declared.columns.items() if name not in fixed and not is_time(kind)
    )


def _key(use_case: UseCase, source: str) -> str:
    return ", ".join((WINDOW_START, *map(quote, use_case.sources[source].key)))


def _of(alias: str, columns: tuple[str, ...]) -> str:
    return ", ".join(f"{alias}.{quote(name)}" for name in columns)
