"""Which of several landed rows holds: later files correct earlier ones, window by window.

A key names a row within its window. A file that lands later wins, also over rows that are stored
and whose file has been archived since.
"""

import duckdb

from ml_platform.sources.intake import row_record
from ml_platform.sources.step_tables import FILES, ROWS
from ml_platform.sources.tables import quarantine_table, source_table
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc, widened_sql

SUPERSEDED = "superseded by "
"""How the reason begins against a row that a later one corrects."""


class StoredRows:
    """What the lake holds of one source in the windows of a range."""

    def __init__(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        use_case: UseCase,
        source: str,
        window_range: Window,
    ) -> None:
        self._cursor = cursor
        self._source = use_case.sources[source]
        self.tables = lake.tables(cursor, use_case.name)
        self._rows = source_table(use_case, source)
        self._quarantine = quarantine_table(use_case)
        windows = list(use_case.calendar.windows(window_range))
        first, last = naive_utc(windows[0].start), naive_utc(windows[-1].start)
        self._inside = f"{WINDOW_START} BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last}'"
        self._of_source = f"{self._inside} AND source = {literal(source)}"

    def files(self) -> frozenset[str]:
        """Names of the files that rows came from."""
        parts = []
        if self._rows.name in self.tables:
            parts.append(f"SELECT _file FROM {self._rows.sql} WHERE {self._inside}")
        if self._quarantine.name in self.tables:
            parts.append(f"SELECT _file FROM {self._quarantine.sql} WHERE {self._of_source}")
        if not parts:
            return frozenset()
        query = f"SELECT DISTINCT _file FROM ({' UNION ALL '.join(parts)})"
        return frozenset(name for (name,) in self._cursor.execute(query).fetchall())

    def keep(self, files: frozenset[str]) -> None:
        """Add the rows of some files to `ROWS`."""
        if not files:
            return
        names = ", ".join(literal(name) for name in sorted(files))
        of_files = f"JOIN {FILES} f ON f.name = s._file WHERE s._file IN ({names})"
        columns = ", ".join(f"s.{quote(c)}" for c in {**self._source.columns, "known_at": ""})
        if self._rows.name in self.tables:
            self._cursor.execute(
                f"""INSERT INTO {ROWS} BY NAME
                SELECT f.number AS __file, s._row AS __row, {columns}, s.{WINDOW_START}
                FROM {widened_sql(self._cursor, self._rows)} s {of_files} AND s.{self._inside}"""
            )
        if self._quarantine.name in self.tables:
            self._cursor.execute(
                f"""INSERT INTO {ROWS} BY NAME
                SELECT f.number AS __file, s._row AS __row, s.reason AS __reason,
                    s.record AS __record, s.{WINDOW_START}
                FROM {self._quarantine.sql} s {of_files} AND s.{self._of_source}"""
            )


def mark_superseded(cursor: duckdb.DuckDBPyConnection, source: Source) -> bool:
    """Give each row of `ROWS` that a later file corrects that reason.

    Returns whether there were any.
    """
    if source.late == "replace":
        beaten = f"""SELECT r.__file AS __of, r.__row AS __at, f.name AS __by
            FROM {ROWS} r
            JOIN (SELECT {WINDOW_START}, max(__file) AS latest
                FROM {ROWS} WHERE __reason IS NULL GROUP BY ALL) w USING ({WINDOW_START})
            JOIN {FILES} f ON f.number = w.latest
            WHERE r.__reason IS NULL AND r.__file < w.latest"""
    else:
        key = ", ".join((WINDOW_START, *(quote(column) for column in source.key)))
        # Most rows are never corrected: find the keys first, rank only their rows.
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE __contested AS SELECT {key}
            FROM {ROWS} WHERE __reason IS NULL GROUP BY ALL HAVING count(*) > 1"""
        )
        if not cursor.execute("FROM temp.__contested LIMIT 1").fetchall():
            return False
        beaten = f"""SELECT __file AS __of, __row AS __at, f.name || ':' || latest AS __by
            FROM (SELECT __file, __row, first_value(__file) OVER same AS winner,
                    first_value(__row) OVER same AS latest
                FROM {ROWS} JOIN temp.__contested USING ({key}) WHERE __reason IS NULL
                WINDOW same AS (PARTITION BY {key} ORDER BY __file DESC, __row)
                QUALIFY row_number() OVER same > 1)
            JOIN {FILES} f ON f.number = winner"""
    row = cursor.execute(
        f"""UPDATE {ROWS} r SET __reason = {literal(SUPERSEDED)} || b.__by,
            __record = {row_record(source)}
        FROM ({beaten}) b WHERE r.__file = b.__of AND r.__row = b.__at AND r.__reason IS NULL"""
    ).fetchone()
    return row is not None and row[0] > 0
