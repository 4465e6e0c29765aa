"""Row versions: what a source said of a key, each with the interval in which it was the truth.

The table of a source holds what it says now. Of keys that were corrected, a second table holds
every version, the current one included, in `[_known_from, _known_until)`: the first version is
known by the declared `known_at`, a later one not before it arrived. A key that was never corrected
has no row there, so that it costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ml_platform.sources.ingestions import IngestedFile
from ml_platform.sources.step_tables import (
    ELSEWHERE,
    FILES,
    NEWS,
    NEWS_WINDOWS,
    ROWS,
    TOUCHED,
)
from ml_platform.sources.tables import landings_table, source_table, versions_table
from ml_platform.sources.version_statements import LakeRelations, VersionStatements
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Replacement
from ml_platform.storage.tables import WINDOW_START, naive_utc, widened_sql

TIMES = ("began_at", "ended_at", "arrived_at")


@dataclass(frozen=True)
class Before:
    """What is known of the windows of a source before they are written."""

    tables: frozenset[str]
    """Of the use case, in the lake."""
    corrects_nothing: bool = False
    """Whether the windows hold no rows, and no row that has landed supersedes another."""
    may_have_moved: bool = True
    """Whether rows may have been in other windows, as those of a file that was written again."""
    left: frozenset[str] = frozenset()
    """Files whose rows may be in other ones by now, where a file is one of a table."""


def versions_replacement(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    window_range: Window,
    held: Sequence[IngestedFile],
    before: Before,
) -> Replacement | None:
    """What the versions of a source are to hold once `ROWS` has been written.

    held: what windows come to hold; what is new among it corrects earlier rows. A version depends
    on what landed and when, and not on when or how often its window is ingested.
    Returns None where nothing of the range was ever corrected.
    """
    news = [each for each in held if each.corrections]
    stored = _stored(cursor, use_case, source, window_range, before.tables)
    nothing_new = not news or (before.corrects_nothing and not before.may_have_moved)
    if nothing_new and not stored.versions:
        return None
    declared = use_case.sources[source]
    table = versions_table(use_case, source)
    columns = [*declared.columns, *({"known_at"} - declared.columns.keys())]
    sql = VersionStatements(declared, columns, stored)
    _create_news(cursor, news, bool(declared.rows_of))
    rewrites = any(each.corrections == "rewrite" for each in news)
    may_have_moved = before.may_have_moved and not rewrites
    earlier = _earlier_rows(cursor, use_case, source, before) if may_have_moved else None
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __moved AS {sql.moved(earlier)}")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {TOUCHED} AS {sql.touched(rewrites)}")
    if not stored.versions and not cursor.execute(f"FROM {TOUCHED} LIMIT 1").fetchall():
        return None
    if rewrites:
        past = sql.untouched()
    else:
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE __sequence AS {sql.sequence()}")
        past = f"{sql.untouched()} UNION ALL BY NAME {sql.corrected()}"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __versions AS {sql.refreshed(past)}")
    row = cursor.execute("SELECT count(*) FROM temp.__versions").fetchone()
    if not stored.versions and row == (0,):
        return None
    start = f"{WINDOW_START} AS __start"
    names = ", ".join(quote(column) for column in table.columns)
    return Replacement(
        table, f"SELECT {names}, {start} FROM temp.__versions", time="__start", is_placed=True
    )


def _create_news(
    cursor: duckdb.DuckDBPyConnection, news: Sequence[IngestedFile], is_table: bool
) -> None:
    """Which files are new in which windows, and when what is new in a window had all arrived."""
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE __landed AS
        SELECT unnest(?::VARCHAR[]) AS file, unnest(?::TIMESTAMP[]) AS window_start""",
        [[each.file for each in news], [each.window_start for each in news]],
    )
    if is_table:
        # A window of a table is read as a whole; when a row left it nobody says.
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE {NEWS} AS
            SELECT DISTINCT r.__file AS number, {WINDOW_START}
            FROM {ROWS} r SEMI JOIN temp.__landed USING ({WINDOW_START})"""
        )
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE {NEWS_WINDOWS} AS
            SELECT DISTINCT {WINDOW_START}, now() AS arrived_at FROM temp.__landed"""
        )
        return
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE {NEWS} AS
        SELECT f.number, n.{WINDOW_START} FROM temp.__landed n
        JOIN {FILES} f ON f.name = n.file"""
    )
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE {NEWS_WINDOWS} AS
        SELECT n.{WINDOW_START}, max(f.modified_at) AS arrived_at
        FROM {NEWS} n JOIN {FILES} f USING (number) GROUP BY 1"""
    )


def _earlier_rows(
    cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str, before: Before
) -> str | None:
    """SQL of key, window and file of stored rows that may have moved to a window with news.

    Those are rows of the same table, or of an earlier version of the same file. None where there
    are none.
    """
    tables = [source_table(use_case, source), versions_table(use_case, source)]
    tables = [table for table in tables if table.name in before.tables]
    if not tables:
        return None
    declared = use_case.sources[source]
    if declared.rows_of:
        name = quote(declared.key[0])
        news = f"{ROWS} r SEMI JOIN {NEWS_WINDOWS} USING ({WINDOW_START})"
        bounds = cursor.execute(
            f"SELECT min({name})::VARCHAR, max({name})::VARCHAR FROM {news} WHERE __reason IS NULL"
        ).fetchone()
        if bounds is None or bounds[0] is None:
            return None
        # By least and greatest values DuckLake leaves out whole files.
        kind = declared.columns[declared.key[0]]
        low, high = (f"CAST({literal(bound)} AS {kind})" for bound in bounds)
        where = f"{name} BETWEEN {low} AND {high}"
    elif declared.removes_gone:
        cursor.execute(
            "CREATE OR REPLACE TEMP TABLE __left AS SELECT unnest(?::VARCHAR[]) AS file",
            [sorted(before.left)],
        )
        where = "_file IN (FROM temp.__left)"
    else:
        landings = landings_table(use_case)
        rows = cursor.execute(
            f"""SELECT DISTINCT l.{WINDOW_START} FROM {landings.sql} l
            JOIN (SELECT f.name, f.fingerprint, min(n.{WINDOW_START}) AS first,
                    max(n.{WINDOW_START}) AS last
                FROM {NEWS} n JOIN {FILES} f USING (number) GROUP BY ALL) f
            ON l.file = f.name AND l.fingerprint <> f.fingerprint
                AND (l.{WINDOW_START} <> f.first OR f.first <> f.last)
            WHERE l.source = {literal(source)} AND l.{WINDOW_START} IS NOT NULL"""
        ).fetchall()
        if not rows:
            return None
        listed = ", ".join(f"TIMESTAMP {literal(str(start))}" for (start,) in rows)
        where = f"{WINDOW_START} IN ({listed})"
    key = ", ".join((WINDOW_START, *(quote(column) for column in declared.key), "_file"))
    earlier = " UNION ALL ".join(f"SELECT {key} FROM {table.sql} WHERE {where}" for table in tables)
    if declared.rows_of:
        return earlier
    there = f"FROM {ROWS} UNION ALL BY NAME FROM {ELSEWHERE}"
    # What the file still has in the other window has not moved from there.
    return f"""FROM ({earlier}) ANTI JOIN (SELECT t.*, f.name AS _file FROM ({there}) t
        JOIN {FILES} f ON f.number = t.__file) USING ({key})"""


def _stored(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    window_range: Window,
    there: frozenset[str],
) -> LakeRelations:
    windows = list(use_case.calendar.windows(window_range))
    first, last = naive_utc(windows[0].start), naive_utc(windows[-1].start)
    inside = f"{WINDOW_START} BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last}'"
    rows, versions = (
        f"(FROM {widened_sql(cursor, table)} WHERE {inside})" if table.name in there else None
        for table in (source_table(use_case, source), versions_table(use_case, source))
    )
    is_versioned = versions and cursor.execute(f"SELECT 1 FROM {versions} LIMIT 1").fetchone()
    return LakeRelations(rows, versions if is_versioned else None)
