"""The SQL from what is stored of a source and what has landed to the versions of its rows.

It works on `ROWS`, `FILES`, `NEWS` and `NEWS_WINDOWS`, and on `__moved`, `TOUCHED` and
`__sequence`, which it fills one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ml_platform.sources.corrections import SUPERSEDED
from ml_platform.sources.step_tables import FILES, NEWS, NEWS_WINDOWS, ROWS, TOUCHED, WINNERS
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL
from ml_platform.storage.tables import WINDOW_START

TIMES = ("began_at", "ended_at", "arrived_at")


@dataclass(frozen=True)
class LakeRelations:
    """SQL of what the lake holds of the windows that are ingested; None where there is nothing."""

    rows: str | None
    versions: str | None


class VersionStatements:
    """The steps from what is stored and what has landed to versions, in SQL."""

    def __init__(self, source: Source, columns: Sequence[str], stored: LakeRelations) -> None:
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
            JOIN {NEWS} n ON n.number = r.__file AND n.{WINDOW_START} = r.{WINDOW_START}
            JOIN {FILES} f ON f.number = r.__file"""
        if earlier is None:
            return f"{found} WHERE false"
        same = " AND ".join(f"r.{column} = e.{column}" for column in self._key[1:])
        is_table = self._source.rows_of or self._source.removes_gone
        file = "true" if is_table else "e._file = f.name"
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
        news = f"SEMI JOIN {NEWS_WINDOWS} USING ({WINDOW_START})"
        parts = [f"SELECT {key} FROM temp.__moved"]
        if not rewrites:
            parts.append(
                f"SELECT {key} FROM {ROWS} {news} "
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

    def corrected(self) -> str:
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
            f"SELECT {self._names()} FROM {self._stored.versions} ANTI JOIN {TOUCHED} {self._using}"
        )

    def refreshed(self, versions: str) -> str:
        """Versions, of which the current ones are the rows that the source's table will hold.

        Another declaration reads the same files in another way, which is no correction.
        """
        current = ", ".join(f"r.{quote(column)}" for column in self._columns)
        return f"""WITH corrected AS ({versions})
            SELECT * FROM corrected WHERE {KNOWN_UNTIL} IS NOT NULL
            UNION ALL BY NAME
            SELECT {self._named("r", self._key[:1])}, {current}, f.name AS _file, r.__row AS _row,
                t.{KNOWN_FROM}, NULL AS {KNOWN_UNTIL}
            FROM (SELECT {", ".join(self._key)}, coalesce(
                    max({KNOWN_FROM}) FILTER ({KNOWN_UNTIL} IS NULL), max({KNOWN_UNTIL})
                ) AS {KNOWN_FROM} FROM corrected GROUP BY ALL) t JOIN {WINNERS} r {self._using}
            JOIN {FILES} f ON f.number = r.__file"""

    def _stored_versions(self) -> str:
        return f"""SELECT {self._named("v", self._key)}, 0 AS step,
                epoch_us({KNOWN_FROM}) AS place, {self._values("v")} AS said, _file, _row,
                {KNOWN_FROM} AS began_at, {KNOWN_UNTIL} AS ended_at, {KNOWN_FROM} AS arrived_at
            FROM {self._stored.versions} v SEMI JOIN {TOUCHED} {self._using}"""

    def _stored_ends(self, versions: str) -> str:
        key = ", ".join(self._key)
        ended = f"max({KNOWN_UNTIL})"
        return f"""SELECT {key}, 0 AS step, epoch_us({ended}) AS place, {ended} AS began_at
            FROM {versions} SEMI JOIN {TOUCHED} {self._using}
            GROUP BY ALL HAVING bool_and({KNOWN_UNTIL} IS NOT NULL)"""

    def _never_corrected(self, rows: str) -> str:
        but = f"ANTI JOIN {self._stored.versions} {self._using}" if self._stored.versions else ""
        return f"""SELECT {self._named("s", self._key)}, 0 AS step, 0 AS place,
                {self._values("s")} AS said, _file, _row, known_at AS began_at
            FROM {rows} s SEMI JOIN {TOUCHED} {self._using} {but}"""

    def _steps(self) -> str:
        """Rows of new files, those aside that lost against what had been stored before."""
        beaten = ""
        if self._stored.rows:
            # Where notes on what was ingested are lost, the row itself shows that it is not new.
            beaten = f"""ANTI JOIN (SELECT {self._named("s", self._key)}, f.number AS at
                FROM {self._stored.rows} s SEMI JOIN {TOUCHED} {self._using}
                JOIN {FILES} f ON f.name = s._file
                LEFT JOIN {ROWS} q ON q.__file = f.number AND q.__row = s._row
                    AND {self._values("q")} IS NOT DISTINCT FROM {self._values("s")}
                WHERE q.__file IS NOT NULL OR NOT {self._is_news("s", "f.number")}) b
                ON {self._same("r", "b")} AND r.__file < b.at"""
        return f"""SELECT {self._named("r", self._key)}, 1 AS step, r.__file AS place,
                {self._values("r")} AS said, f.name AS _file, r.__row AS _row,
                f.modified_at AS arrived_at
            FROM (FROM {ROWS} WHERE (__reason IS NULL
                OR starts_with(__reason, {literal(SUPERSEDED)})) AND {self._typed}) r
            JOIN {NEWS} n ON n.number = r.__file AND n.{WINDOW_START} = r.{WINDOW_START}
            JOIN {FILES} f ON f.number = r.__file
            SEMI JOIN {TOUCHED} t ON {self._same("r", "t")} {beaten}"""

    def _outcome(self) -> str:
        """What holds of keys in the end where no new row says it: they are removed, or fall back.

        That is so where the file that said it was written again without them.
        """
        is_table = self._source.rows_of or self._source.removes_gone
        whole = is_table or self._source.late == "replace"
        stored = self._stored.rows or f"({self._nothing()})"
        return f"""SELECT {self._named("t", self._key)}, 2 AS step, 0 AS place,
                CASE WHEN r.__file IS NOT NULL THEN {self._values("r")} END AS said,
                f.name AS _file, r.__row AS _row, w.arrived_at
            FROM {TOUCHED} t JOIN {NEWS_WINDOWS} w USING ({WINDOW_START})
            LEFT JOIN {WINNERS} r ON {self._same("t", "r")}
            LEFT JOIN {FILES} f ON f.number = r.__file
            LEFT JOIN {stored} s ON {self._same("t", "s")}
            LEFT JOIN {FILES} s_f ON s_f.name = s._file
            WHERE {self._is_news("t", "r.__file")} IS NOT TRUE
            AND ({"true" if whole else "false"} OR s._file IS NULL
                OR {self._is_news("t", "s_f.number")})"""

    def _is_news(self, alias: str, number: str) -> str:
        return (
            f"(EXISTS (FROM {NEWS} n WHERE n.number = {number} "
            f"AND n.{WINDOW_START} = {alias}.{WINDOW_START}))"
        )

    def _nothing(self) -> str:
        """No rows, of the columns of versions."""
        return f"""SELECT {WINDOW_START}, {", ".join(quote(c) for c in self._columns)},
            NULL::VARCHAR AS _file, NULL::BIGINT AS _row, NULL::TIMESTAMPTZ AS {KNOWN_FROM},
            NULL::TIMESTAMPTZ AS {KNOWN_UNTIL} FROM {ROWS} WHERE false"""

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
