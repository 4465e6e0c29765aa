"""What a check computes from: sources and stored rows of a range, copied out of the lake once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from ml_platform.errors import EmptyPartition
from ml_platform.features.known import features_sql
from ml_platform.features.leak.comparison import FINGERPRINT, fingerprint_sql
from ml_platform.features.leak.cuts import Candidates
from ml_platform.features.leak.subjects import CheckedQuery
from ml_platform.features.views import Sight, inside_sql, instant, windows_sql
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START
from ml_platform.storage.threads import BYTES_A_VALUE

STORED = "temp.__stored"
"""Rows as they are stored, with the fingerprint of the values of each."""
WIDE_INTEGERS = frozenset({"HUGEINT", "UHUGEINT"})
"""Types of which Parquet holds a DOUBLE."""


@dataclass(frozen=True)
class SourceCopies:
    """Copies on one connection, which end with it.

    A check runs dozens of queries over the same rows; read from the lake, each would take several
    times as long.
    """

    lake: Lake
    cursor: duckdb.DuckDBPyConnection
    subject: CheckedQuery
    snapshot: int
    corrected: set[str] = field(default_factory=set)
    """Sources with rows that were corrected: at a cut these are shown as they were known then."""

    @property
    def relations(self) -> dict[str, str]:
        """SQL that names the copy of each source."""
        return {name: f"temp.{quote(f'__shown_{name}')}" for name in self.subject.reads}

    def copy(self, covered: Window) -> None:
        """Copy a range: the rows to check, and the sources that they are computed from.

        Sources reach as far as a sight that is `farther` shows them.
        """
        self.copy_sources(self.subject.sees(Sight(covered, self.snapshot, farther=True)))
        self.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {STORED} AS "
            f"SELECT *, {self._fingerprint} AS {FINGERPRINT} FROM ({self._checked_sql(covered)})"
        )

    def copy_sources(self, covered: Window) -> None:
        """Copy the sources of a range of event time, in place of what was copied before."""
        use_case, windows = self.subject.use_case, windows_sql(self.subject.use_case, covered)
        versions = self._versions
        self.corrected.clear()
        for name, copied in self.relations.items():
            source = use_case.sources[name]
            if use_case.is_as_known and versions.sql(name, windows):
                self.corrected.add(name)
            names = dict.fromkeys((WINDOW_START, *source.columns, "known_at"))
            relation = self.lake.relation(self.cursor, use_case.name, name, self.snapshot)
            self.cursor.execute(
                f"CREATE OR REPLACE TEMP TABLE {copied} AS SELECT {', '.join(map(quote, names))} "
                f"FROM {relation} WHERE {windows} "
                f"AND {inside_sql(covered, source.event_time)}"
            )

    def again(self, sight: Sight, relations: Mapping[str, str] | None = None) -> str:
        """The rows of a sight, computed again; those that `known_by` allows to judge.

        relations: SQL that names other copies of some sources.
        """
        return self._computed(sight, self._columns, relations)

    def again_fingerprints(self, sight: Sight) -> str:
        """As `again`, with fingerprints of the rows in place of their values."""
        keys = (f"{_typed(n, kind)} AS {quote(n)}" for n, kind in self._row_key.items())
        return self._computed(sight, f"{', '.join(keys)}, {self._fingerprint} AS {FINGERPRINT}")

    def _computed(
        self, sight: Sight, items: str, relations: Mapping[str, str] | None = None
    ) -> str:
        named = {**self.relations, **(relations or {})}
        if sight.known_by is not None or sight.as_of is not None:
            # Read from the lake, which knows the versions.
            named = {name: of for name, of in named.items() if name not in self.corrected}
        query = self.subject.sql(self.lake, self.cursor, sight, named)
        return f"SELECT {items} FROM ({query}) WHERE {self._judged(sight)}"

    def stored(self, sight: Sight) -> str:
        """The same rows as they were stored; of corrected ones, as they were known at the cut."""
        judged, relation = self._judged(sight), f"(SELECT * EXCLUDE ({FINGERPRINT}) FROM {STORED})"
        if self.corrected and sight.known_by is not None:
            if self.subject.is_of_labels:
                shown = Sight(sight.range, sight.snapshot, as_of=sight.known_by)
                return f"SELECT * FROM ({self.again(shown)}) WHERE {judged}"
            relation = self._known_sql(sight, sight.known_by)
        return f"SELECT * FROM {relation} WHERE {inside_sql(sight.range)} AND {judged}"

    def stored_fingerprints(self, sight: Sight) -> str:
        """As `stored`, with fingerprints of the rows in place of their values."""
        keys = ", ".join(map(quote, self._row_key))
        if self.corrected and sight.known_by is not None:
            return (
                f"SELECT {keys}, {self._fingerprint} AS {FINGERPRINT} FROM ({self.stored(sight)})"
            )
        where = f"{inside_sql(sight.range)} AND {self._judged(sight)}"
        return f"SELECT {keys}, {FINGERPRINT} FROM {STORED} WHERE {where}"

    def candidates(self, windows: Sequence[Window]) -> list[Candidates]:
        """Moments at which the rows of each window can differ."""
        bounds = ", ".join(
            f"({number}, {instant(window.start)}, {instant(window.end)})"
            for number, window in enumerate(windows)
        )
        limit = quote(self.subject.known_by)
        times = [f"SELECT event_time AS row_at, {limit} AS moment, true AS is_row FROM {STORED}"]
        if self.subject.known_by == "event_time":
            known = (
                f"SELECT known_at, known_at, false FROM {name}" for name in self.relations.values()
            )
            times += known
        rows = self.cursor.execute(
            f"""SELECT number, list(DISTINCT moment ORDER BY moment) FILTER (has_row),
            list(DISTINCT moment ORDER BY moment) FILTER (NOT has_row)
            FROM (SELECT number, epoch_us(moment) AS moment, bool_or(is_row) AS has_row
                FROM ({" UNION ".join(times)})
                JOIN (VALUES {bounds}) AS w(number, begins, ends)
                ON row_at >= begins AND row_at < ends
                WHERE moment IS NOT NULL GROUP BY number, epoch_us(moment))
            GROUP BY number"""
        ).fetchall()
        found = {number: Candidates(at or (), known or ()) for number, at, known in rows}
        return [found.get(number, Candidates((), ())) for number in range(len(windows))]

    def count_rows(self, covered: Window) -> int:
        """How many source rows there are in the windows of a range."""
        use_case, total = self.subject.use_case, 0
        for name in self.subject.reads:
            relation = self.lake.relation(self.cursor, use_case.name, name, self.snapshot)
            row = self.cursor.execute(
                f"SELECT count(*) FROM {relation} WHERE {windows_sql(use_case, covered)}"
            ).fetchone()
            total += int(row[0]) if row else 0
        return total

    @property
    def columns(self) -> int:
        """How many the rows and all their sources have together."""
        sources = (self.subject.use_case.sources[name] for name in self.subject.reads)
        return len(self.subject.table.columns) + sum(len(each.columns) for each in sources)

    def count_bytes(self, covered: Window) -> int:
        """How much `copy` copies of a range, roughly."""
        seen = self.subject.sees(Sight(covered, self.snapshot, farther=True))
        return BYTES_A_VALUE * self.columns * self.count_rows(seen)

    def require_rows(self, window: Window) -> None:
        """Raise EmptyPartition where a window has no rows."""
        rows = f"SELECT 1 FROM {STORED} WHERE {inside_sql(window)} LIMIT 1"
        if self.cursor.execute(rows).fetchone() is None:
            table = f"{self.subject.use_case.name}/{self.subject.table.name}"
            raise EmptyPartition(f"{table} has no rows in {window}")

    @property
    def _versions(self) -> KnownVersions:
        return KnownVersions(self.lake, self.cursor, self.subject.use_case, self.snapshot)

    @property
    def _row_key(self) -> Mapping[str, str]:
        """Columns by which rows are found, and their types."""
        columns, values = self.subject.table.columns, self.subject.values
        return {name: kind for name, kind in columns.items() if name not in values}

    @property
    def _fingerprint(self) -> str:
        """SQL of the fingerprint of a row, whose values are stored or computed."""
        return fingerprint_sql(_held(name, kind) for name, kind in self.subject.values.items())

    @property
    def _columns(self) -> str:
        types = self.subject.table.columns
        return ", ".join(f"{_typed(c, kind)} AS {quote(c)}" for c, kind in types.items())

    def _checked_sql(self, covered: Window) -> str:
        if self.subject.is_of_labels:
            # What came back in the place of some is not of `labels.sql`.
            return self.again(Sight(covered, self.snapshot))
        use_case, table = self.subject.use_case, self.subject.table
        stored = self.lake.relation(self.cursor, use_case.name, table.name, self.snapshot)
        names = ", ".join(map(quote, table.columns))
        return f"SELECT {names} FROM {stored} WHERE {windows_sql(use_case, covered)}"

    def _known_sql(self, sight: Sight, moment: datetime) -> str:
        use_case, table = self.subject.use_case, self.subject.table
        windows = windows_sql(use_case, sight.range)
        names = ", ".join(map(quote, table.columns))
        known = features_sql(self._versions, self.subject.name, windows, moment)
        return f"(SELECT {names} FROM {known} WHERE {windows})"

    def _judged(self, sight: Sight) -> str:
        return until_sql(self.subject.known_by, sight.known_by)


def _typed(name: str, kind: str) -> str:
    return f"CAST({quote(name)} AS {kind})"


def _held(name: str, kind: str) -> str:
    """A value as Parquet holds it."""
    typed = _typed(name, kind)
    return f"CAST({typed} AS DOUBLE)" if kind in WIDE_INTEGERS else typed


def until_sql(column: str, moment: datetime | None) -> str:
    """Predicate that keeps rows up to a moment."""
    return "true" if moment is None else f"{quote(column)} <= {instant(moment)}"
