"""Row versions: what a source said of a key, each with the interval in which it was the truth.

The table of a source holds what it says now. Of keys that were corrected, a second table holds
every version, the current one included, in `[_known_from, _known_until)`: the first version is
known by the declared `known_at`, a later one not before it arrived. A key that was never corrected
has no row there, so that it costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from ml_platform.sources.corrections import SUPERSEDED
from ml_platform.sources.ingestions import Held
from ml_platform.sources.tables import landings_table, source_table, versions_table
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Replacement, Table
from ml_platform.storage.tables import WINDOW_START, naive_utc

WINNERS = "(FROM temp.__rows WHERE __reason IS NULL)"

TIMES = ("began_at", "ended_at", "arrived_at")


@dataclass(frozen=True)
class _Stored:
    """SQL of what the lake holds of the windows that are ingested; None where there is no table."""

    rows: str | None
    versions: str | None

    @classmethod
    def of(
        cls,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        use_case: UseCase,
        source: str,
        stretch: Window,
    ) -> "_Stored":
        windows = list(use_case.calendar.windows(stretch))
        first, last = naive_utc(windows[0].start), naive_utc(windows[-1].start)
        inside = f"{WINDOW_START} BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{last}'"
        known = lake.tables(cursor, use_case.name)
        rows, versions = source_table(use_case, source), versions_table(use_case, source)
        return cls(
            f"(FROM {rows.sql} WHERE {inside})" if rows.name in known else None,
            f"(FROM {versions.sql} WHERE {inside})" if versions.name in known else None,
        )


def versions_replacement(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    stretch: Window,
    held: Sequence[Held],
) -> Replacement | None:
    """What the versions of a source are to hold once `temp.__rows` has been written.

    held: what windows come to hold; what is new among it corrects earlier rows. A version depends
    on what landed and when, and not on when or how often its window is ingested.
    Returns None where nothing of the range was ever corrected.
    """
    news = [each for each in held if each.corrections]
    stored = _Stored.of(lake, cursor, use_case, source, stretch)
    if not news and not stored.versions:
        return None
    declared = use_case.sources[source]
    table = versions_table(use_case, source)
    columns = [*declared.columns, *({"known_at"} - declared.columns.keys())]
    sql = _Statements(declared, columns, stored)
    _create_news(cursor, news, bool(declared.table))
    rewrites = any(each.corrections == "rewrite" for each in news)
    earlier = None if rewrites else _earlier_rows(lake, cursor, use_case, source, stored)
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __moved AS {sql.moved(earlier)}")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __touched AS {sql.touched(rewrites)}")
    if not stored.versions and not cursor.execute("FROM temp.__touched LIMIT 1").fetchall():
        return None
    if rewrites:
        past = sql.untouched()
    else:
        cursor.execute(f"CREATE OR REPLACE TEMP TABLE __sequence AS {sql.sequence()}")
        past = f"{sql.untouched()} UNION ALL BY NAME {sql.told()}"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE __versions AS {sql.refreshed(past)}")
    row = cursor.execute("SELECT count(*) FROM temp.__versions").fetchone()
    if not stored.versions and row == (0,):
        return None
    start = f"timezone('UTC', {WINDOW_START}) AS __start"
    names = ", ".join(quote(column) for column in table.columns)
    return Replacement(table, f"SELECT {names}, {start} FROM temp.__versions", time="__start")


def _create_news(cursor: duckdb.DuckDBPyConnection, news: Sequence[Held], is_table: bool) -> None:
    """Which files are new in which windows, and when what is new in a window had all arrived."""
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE __landed AS
        SELECT unnest(?::VARCHAR[]) AS file, unnest(?::TIMESTAMP[]) AS window_start""",
        [[each.file for each in news], [each.window_start for each in news]],
    )
    if is_table:
        # A window of a table is read as a whole; when a row left it nobody says.
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE __news AS
            SELECT DISTINCT r.__file AS number, {WINDOW_START}
            FROM temp.__rows r SEMI JOIN temp.__landed USING ({WINDOW_START})"""
        )
        cursor.execute(
            f"""CREATE OR REPLACE TEMP TABLE __news_windows AS
            SELECT DISTINCT {WINDOW_START}, now() AS arrived_at FROM temp.__landed"""
        )
        return
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __news AS
        SELECT f.number, n.{WINDOW_START} FROM temp.__landed n
        JOIN temp.__files f ON f.name = n.file"""
    )
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __news_windows AS
        SELECT n.{WINDOW_START}, max(f.modified_at) AS arrived_at
        FROM temp.__news n JOIN temp.__files f USING (number) GROUP BY 1"""
    )


def _earlier_rows(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    stored: _Stored,
) -> str | None:
    """SQL of key, window and file of stored rows that may have moved to a window with news.

    Those are rows of the same table, or of an earlier version of the same file. None where there
    are none.
    """
    if not stored.rows:
        return None
    declared = use_case.sources[source]
    if declared.table:
        name = quote(declared.key[0])
        news = f"temp.__rows r SEMI JOIN temp.__news_windows USING ({WINDOW_START})"
        bounds = cursor.execute(
            f"SELECT min({name})::VARCHAR, max({name})::VARCHAR FROM {news} WHERE __reason IS NULL"
        ).fetchone()
        if bounds is None or bounds[0] is None:
            return None
        # By least and greatest values DuckLake leaves out whole files.
        kind = declared.columns[declared.key[0]]
        low, high = (f"CAST({literal(bound)} AS {kind})" for bound in bounds)
        where = f"{name} BETWEEN {low} AND {high}"
    else:
        landings = landings_table(use_case)
        rows = cursor.execute(
            f"""SELECT DISTINCT l.{WINDOW_START} FROM {landings.sql} l
            JOIN (SELECT f.name, f.fingerprint, min(n.{WINDOW_START}) AS first,
                    max(n.{WINDOW_START}) AS last
                FROM temp.__news n JOIN temp.__files f USING (number) GROUP BY ALL) f
            ON l.file = f.name AND l.fingerprint <> f.fingerprint
                AND (l.{WINDOW_START} <> f.first OR f.first <> f.last)
            WHERE l.source = {literal(source)} AND l.{WINDOW_START} IS NOT NULL"""
        ).fetchall()
        if not rows:
            return None
        listed = ", ".join(f"TIMESTAMP {literal(str(start))}" for (start,) in rows)
        where = f"{WINDOW_START} IN ({listed})"
    key = ", ".join((WINDOW_START, *(quote(column) for column in declared.key), "_file"))
    tables = [source_table(use_case, source)]
    tables += [versions_table(use_case, source)] if stored.versions else []
    return " UNION ALL ".join(f"SELECT {key} FROM {table.sql} WHERE {where}" for table in tables)


class _Statements:
    """The steps from what is stored and what has landed to versions, in SQL."""

    def __init__(self, source: Source, columns: Sequence[str], stored: _Stored) -> None:
        self._source = source
        self._columns = columns
        self._stored = stored
        self._key = (WINDOW_START, *(quote(column) for column in source.key))
        self._using = f"USING ({', '.join(self._key)})"
        self._typed = " AND ".join(f"{quote(column)} IS NOT NULL" for column in source.key)

    def moved(self, earlier: str | None) -> str:
        """Keys that are new in a window and were in another one before: their event time changed.

        earlier: SQL of the rows that they may have been.
        """
        key = self._named("r", self._key)
        found = f"""SELECT {key} FROM {WINNERS} r
            JOIN temp.__news n ON n.number = r.__file AND n.{WINDOW_START} = r.{WINDOW_START}
            JOIN temp.__files f ON f.number = r.__file"""
        if earlier is None:
            return f"{found} WHERE false"
        same = " AND ".join(f"r.{column} = e.{column}" for column in self._key[1:])
        file = "true" if self._source.table else "e._file = f.name"
        stored = f"ANTI JOIN {self._stored.rows} s ON {self._same('r', 's')}"
        if self._stored.versions:
            stored += f" ANTI JOIN {self._stored.versions} v ON {self._same('r', 'v')}"
        return f"""{found} SEMI JOIN ({earlier}) e
            ON {same} AND e.{WINDOW_START} <> r.{WINDOW_START} AND {file} {stored}"""

    def touched(self, rewrites: bool) -> str:
        """Keys of windows with news whose rows may have become others.

        rewrites: leave out those that only several new files name.
        """
        key = ", ".join(self._key)
        news = f"SEMI JOIN temp.__news_windows USING ({WINDOW_START})"
        parts = [f"SELECT {key} FROM temp.__moved"]
        if not rewrites:
            parts.append(
                f"SELECT {key} FROM temp.__rows {news} "
                f"WHERE starts_with(__reason, {literal(SUPERSEDED)}) AND {self._typed}"
            )
        if self._stored.rows:
            parts.append(
                f"""SELECT {self._named("s", self._key)} FROM {self._stored.rows} s {news}
                LEFT JOIN {WINNERS} r {self._using}
                WHERE r.__file IS NULL OR {self._values("s")} IS DISTINCT FROM {self._values("r")}
                """
            )
        if self._stored.rows and self._stored.versions:
            parts.append(
                f"SELECT {key} FROM {self._stored.versions} {news} "
                f"SEMI JOIN {WINNERS} {self._using} ANTI JOIN {self._stored.rows} {self._using}"
            )
        return f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)})"

    def sequence(self) -> str:
        """What was said of each touched key in order; without values where it was removed."""
        # What moved was known elsewhere before, so that its first version here is a correction.
        parts = [
            f"""SELECT {", ".join(self._key)}, 0 AS step, -1 AS place,
                {", ".join(f"NULL::TIMESTAMPTZ AS {at}" for at in TIMES)} FROM temp.__moved"""
        ]
        if self._stored.versions:
            parts += [self._stored_versions(), self._stored_ends(self._stored.versions)]
        if self._stored.rows:
            parts.append(self._never_corrected(self._stored.rows))
        parts += [self._steps(), self._outcome()]
        return " UNION ALL BY NAME ".join(parts)

    def told(self) -> str:
        """Versions of the touched keys that were corrected, from `temp.__sequence`."""
        key = f"PARTITION BY {', '.join(self._key)}"
        corrected_at = "arrived_at"
        if self._source.corrected_at:
            given = f"said.{quote(self._source.corrected_at)}"
            corrected_at = f"coalesce(CAST({given} AS TIMESTAMPTZ), arrived_at)"
        names = ", ".join(f"said.{quote(c)} AS {quote(c)}" for c in self._columns)
        # A version that another one replaced before it was known was never the truth.
        return f"""SELECT {WINDOW_START}, {names}, _file, _row, began AS {KNOWN_FROM},
                ended AS {KNOWN_UNTIL}
            FROM (SELECT *, least(ended_at, min(began) OVER ({key} ORDER BY step, place
                    ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING)) AS ended
                FROM (SELECT *, CASE WHEN step = 0 THEN began_at WHEN said IS NULL THEN arrived_at
                        WHEN is_first THEN said.known_at
                        ELSE greatest(said.known_at, {corrected_at}) END AS began
                    FROM (SELECT *, row_number() OVER said_so = 1 AS is_first,
                            lag(said) OVER said_so IS DISTINCT FROM said AS is_other
                        FROM temp.__sequence WINDOW said_so AS ({key} ORDER BY step, place))
                    WHERE is_first OR is_other))
            WHERE said IS NOT NULL AND (ended IS NULL OR began < ended)
            QUALIFY count(*) OVER ({key}) > 1 OR ended IS NOT NULL OR began > said.known_at"""

    def untouched(self) -> str:
        """Stored versions of other keys."""
        if not self._stored.versions:
            return f"SELECT * FROM ({self._nothing()})"
        return (
            f"SELECT {self._names()} FROM {self._stored.versions} "
            f"ANTI JOIN temp.__touched {self._using}"
        )

    def refreshed(self, versions: str) -> str:
        """Versions, of which the current ones are the rows that the source's table will hold.

        Another declaration reads the same files in another way, which is no correction.
        """
        current = ", ".join(f"r.{quote(column)}" for column in self._columns)
        return f"""WITH told AS ({versions})
            SELECT * FROM told WHERE {KNOWN_UNTIL} IS NOT NULL
            UNION ALL BY NAME
            SELECT {self._named("r", self._key[:1])}, {current}, f.name AS _file, r.__row AS _row,
                t.{KNOWN_FROM}, NULL AS {KNOWN_UNTIL}
            FROM (SELECT {", ".join(self._key)}, coalesce(
                    max({KNOWN_FROM}) FILTER ({KNOWN_UNTIL} IS NULL), max({KNOWN_UNTIL})
                ) AS {KNOWN_FROM} FROM told GROUP BY ALL) t JOIN {WINNERS} r {self._using}
            JOIN temp.__files f ON f.number = r.__file"""

    def _stored_versions(self) -> str:
        return f"""SELECT {self._named("v", self._key)}, 0 AS step,
                epoch_us({KNOWN_FROM}) AS place, {self._values("v")} AS said, _file, _row,
                {KNOWN_FROM} AS began_at, {KNOWN_UNTIL} AS ended_at, {KNOWN_FROM} AS arrived_at
            FROM {self._stored.versions} v SEMI JOIN temp.__touched {self._using}"""

    def _stored_ends(self, versions: str) -> str:
        key = ", ".join(self._key)
        ended = f"max({KNOWN_UNTIL})"
        return f"""SELECT {key}, 0 AS step, epoch_us({ended}) AS place, {ended} AS began_at
            FROM {versions} SEMI JOIN temp.__touched {self._using}
            GROUP BY ALL HAVING bool_and({KNOWN_UNTIL} IS NOT NULL)"""

    def _never_corrected(self, rows: str) -> str:
        but = f"ANTI JOIN {self._stored.versions} {self._using}" if self._stored.versions else ""
        return f"""SELECT {self._named("s", self._key)}, 0 AS step, 0 AS place,
                {self._values("s")} AS said, _file, _row, known_at AS began_at
            FROM {rows} s SEMI JOIN temp.__touched {self._using} {but}"""

    def _steps(self) -> str:
        """Rows of new files, those aside that lost against what had been stored before."""
        beaten = ""
        if self._stored.rows:
            # Where notes on what was ingested are lost, the row itself tells that it is not new.
            beaten = f"""ANTI JOIN (SELECT {self._named("s", self._key)}, f.number AS at
                FROM {self._stored.rows} s SEMI JOIN temp.__touched {self._using}
                JOIN temp.__files f ON f.name = s._file
                LEFT JOIN temp.__rows q ON q.__file = f.number AND q.__row = s._row
                    AND {self._values("q")} IS NOT DISTINCT FROM {self._values("s")}
                WHERE q.__file IS NOT NULL OR NOT {self._is_news("s", "f.number")}) b
                ON {self._same("r", "b")} AND r.__file < b.at"""
        return f"""SELECT {self._named("r", self._key)}, 1 AS step, r.__file AS place,
                {self._values("r")} AS said, f.name AS _file, r.__row AS _row,
                f.modified_at AS arrived_at
            FROM (FROM temp.__rows WHERE (__reason IS NULL
                OR starts_with(__reason, {literal(SUPERSEDED)})) AND {self._typed}) r
            JOIN temp.__news n ON n.number = r.__file AND n.{WINDOW_START} = r.{WINDOW_START}
            JOIN temp.__files f ON f.number = r.__file
            SEMI JOIN temp.__touched t ON {self._same("r", "t")} {beaten}"""

    def _outcome(self) -> str:
        """What holds of keys in the end where no new row says it: they are removed, or fall back.

        That is so where the file that said it was written anew without them.
        """
        whole = self._source.table or self._source.late == "replace"
        stored = self._stored.rows or f"({self._nothing()})"
        return f"""SELECT {self._named("t", self._key)}, 2 AS step, 0 AS place,
                CASE WHEN r.__file IS NOT NULL THEN {self._values("r")} END AS said,
                f.name AS _file, r.__row AS _row, w.arrived_at
            FROM temp.__touched t JOIN temp.__news_windows w USING ({WINDOW_START})
            LEFT JOIN {WINNERS} r ON {self._same("t", "r")}
            LEFT JOIN temp.__files f ON f.number = r.__file
            LEFT JOIN {stored} s ON {self._same("t", "s")}
            LEFT JOIN temp.__files s_f ON s_f.name = s._file
            WHERE {self._is_news("t", "r.__file")} IS NOT TRUE
            AND ({"true" if whole else "false"} OR s._file IS NULL
                OR {self._is_news("t", "s_f.number")})"""

    def _is_news(self, alias: str, number: str) -> str:
        return (
            f"(EXISTS (FROM temp.__news n WHERE n.number = {number} "
            f"AND n.{WINDOW_START} = {alias}.{WINDOW_START}))"
        )

    def _nothing(self) -> str:
        """No rows, of the columns of versions."""
        return f"""SELECT {WINDOW_START}, {", ".join(quote(c) for c in self._columns)},
            NULL::VARCHAR AS _file, NULL::BIGINT AS _row, NULL::TIMESTAMPTZ AS {KNOWN_FROM},
            NULL::TIMESTAMPTZ AS {KNOWN_UNTIL} FROM temp.__rows WHERE false"""

    def _names(self) -> str:
        columns = ", ".join(quote(column) for column in self._columns)
        return f"{WINDOW_START}, {columns}, _file, _row, {KNOWN_FROM}, {KNOWN_UNTIL}"

    def _values(self, alias: str) -> str:
        pairs = ", ".join(f"{quote(c)} := {alias}.{quote(c)}" for c in self._columns)
        return f"struct_pack({pairs})"

    def _named(self, alias: str, columns: Sequence[str]) -> str:
        return ", ".join(f"{alias}.{column}" for column in columns)

    def _same(self, one: str, other: str) -> str:
        return " AND ".join(f"{one}.{column} = {other}.{column}" for column in self._key)


def shown_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    snapshot: int | None,
    where: str,
    at: str | None,
) -> str:
    """SQL of a source's rows in the versions that were known at a moment.

    Of what was not known yet then the first version is shown: whether to use it says `known_at`.
    where: predicate on `window_start`; at: SQL of the moment, which may name columns of the row;
    None for what the source says now.
    """
    rows = lake.relation(cursor, use_case.name, source, snapshot)
    table = versions_table(use_case, source)
    versions = at and versions_sql(lake, cursor, table, snapshot, where)
    if not versions:
        return rows
    declared = use_case.sources[source]
    columns = list(dict.fromkeys((*declared.columns, "known_at", "_file", "_row", WINDOW_START)))
    names = ", ".join(quote(column) for column in columns)
    key = ", ".join((WINDOW_START, *(quote(column) for column in declared.key)))
    earliest = f"min({KNOWN_FROM}) OVER (PARTITION BY {key})"
    first = f"{KNOWN_FROM} = known_at AND {KNOWN_FROM} = {earliest}"
    return f"""(SELECT {names} FROM {rows} ANTI JOIN {versions} USING ({key}) WHERE {where}
        UNION ALL
        SELECT {names} FROM (SELECT *, {first} AS __first FROM {versions})
        WHERE (__first OR {KNOWN_FROM} <= {at}) AND ({KNOWN_UNTIL} IS NULL OR {KNOWN_UNTIL} > {at}))
        """


def versions_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    versions: Table,
    snapshot: int | None,
    where: str,
) -> str | None:
    """SQL of the rows of a table of versions; None where nothing of them was corrected.

    where: predicate on `window_start`.
    """
    if versions.name not in lake.tables(cursor, versions.schema):
        return None
    at = "" if snapshot is None else f" AT (VERSION => {snapshot:d})"
    relation = f"(FROM {versions.sql}{at} WHERE {where})"
    try:
        row = cursor.execute(f"SELECT 1 FROM {relation} LIMIT 1").fetchone()
    except (duckdb.CatalogException, duckdb.BinderException):
        # The snapshot is from before the first correction.
        return None
    return relation if row else None
