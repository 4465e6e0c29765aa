"""Which source row changes a value: the rows that make the difference are shown one by one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_platform.features.leak.comparison import RowDifference, moment_at
from ml_platform.features.leak.shown import SourceCopies, until_sql
from ml_platform.features.views import Sight, inside_sql, instant
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.windows import Window

ORDERED = "temp.__withheld"
SHARE_THAT_COUNTS = 1e-6
"""Of the whole difference: a smaller change of a float is rounding."""


@dataclass(frozen=True)
class RowValue:
    """What a query says of one row; `text` is None where the row or its value is not there."""

    is_there: bool
    text: str | None

    def __str__(self) -> str:
        if not self.is_there:
            return "no row"
        return "NULL" if self.text is None else self.text

    def same(self, other: "RowValue", size: float) -> bool:
        """Whether two values are the same, floats within a share of `size`."""
        one, two = self._number, other._number
        if one is not None and two is not None:
            return abs(one - two) <= SHARE_THAT_COUNTS * size
        return self == other

    def size_of_change(self, other: "RowValue") -> float:
        """How far two numbers are apart; 0 for others."""
        one, two = self._number, other._number
        return 0.0 if one is None or two is None else abs(one - two)

    @property
    def _number(self) -> float | None:
        try:
            number = float(self.text or "")
        except ValueError:
            return None
        return number if math.isfinite(number) else None


@dataclass(frozen=True)
class Cause:
    """The first source row that changes a value, all rows before it in order shown too."""

    source: str
    keys: Mapping[str, str]
    event_time: datetime
    known_at: datetime | None
    before: RowValue
    after: RowValue

    def __str__(self) -> str:
        named = "".join(f" {key}={value}" for key, value in self.keys.items())
        known = self.known_at.isoformat() if self.known_at else "nobody says when"
        return (
            f"the row of {self.source}{named} at {self.event_time.isoformat()}, known at {known}, "
            f"changes it from {self.before} to {self.after}"
        )


@dataclass(frozen=True)
class Probe:
    """One row of a query, looked up under what sources are shown.

    sight: what the query is shown at most, of the copies.
    """

    shown: SourceCopies
    difference: RowDifference
    judged_by: datetime | None
    """Of labels: a row that says to be known later is not there."""

    def value(self, sight: Sight, relations: Mapping[str, str] | None = None) -> RowValue:
        """The row's value, or whether it is there."""
        subject, difference = self.shown.subject, self.difference
        feature = difference.feature
        keys = " AND ".join(
            f"CAST({quote(key)} AS VARCHAR) IS NOT DISTINCT FROM {_text(value)}"
            for key, value in difference.keys.items()
        )
        shown = f"CAST({quote(feature)} AS VARCHAR)" if feature else "'a row'"
        judged = until_sql(subject.known_by, self.judged_by)
        row = self.shown.cursor.execute(
            f"SELECT {shown} FROM ({self.shown.again(sight, relations)}) "
            f"WHERE event_time = {instant(difference.at)} AND {keys} AND {judged} LIMIT 1"
        ).fetchone()
        return RowValue(False, None) if row is None else RowValue(True, row[0])

    def cause(self, sight: Sight, withheld: Callable[[str], str], order: str) -> Cause | None:
        """The first of the withheld rows that changes the value; None where they all do not.

        withheld: predicate of a source's rows, given the name of its event time; order: SQL of
        `row_at`, their event time, and `known_at`, by which they are shown one after another.
        """
        count = self._put_in_order(withheld, order)
        none, every = (self._with(sight, withheld, number) for number in (0, count))
        size = none.size_of_change(every)
        if not count or none.same(every, size):
            return None
        # Between a prefix that changes nothing and one that does there is a row that does.
        low, high = 0, count
        while high - low > 1:
            middle = (low + high) // 2
            if none.same(self._with(sight, withheld, middle), size):
                low = middle
            else:
                high = middle
        after = self._with(sight, withheld, high)
        return self._row(high, none, after)

    def _put_in_order(self, withheld: Callable[[str], str], order: str) -> int:
        sources = self.shown.subject.use_case.sources
        parts = " UNION ALL ".join(
            f"SELECT {literal(name)} AS source, rowid AS row, {quote(sources[name].event_time)} "
            f"AS row_at, known_at FROM {copied} WHERE {withheld(sources[name].event_time)}"
            for name, copied in self.shown.relations.items()
        )
        self.shown.cursor.execute(
            f"CREATE OR REPLACE TEMP TABLE {ORDERED} AS SELECT *, "
            f"row_number() OVER (ORDER BY {order}, source, row) AS n FROM ({parts})"
        )
        row = self.shown.cursor.execute(f"SELECT count(*) FROM {ORDERED}").fetchone()
        return int(row[0]) if row else 0

    def _with(self, sight: Sight, withheld: Callable[[str], str], number: int) -> RowValue:
        """The value with so many of the withheld rows shown."""
        sources = self.shown.subject.use_case.sources
        relations = {
            name: f"(SELECT * FROM {copied} WHERE ({withheld(sources[name].event_time)}) IS NOT "
            f"TRUE OR rowid IN (SELECT row FROM {ORDERED} "
            f"WHERE source = {literal(name)} AND n <= {number}))"
            for name, copied in self.shown.relations.items()
        }
        return self.value(sight, relations)

    def _row(self, number: int, before: RowValue, after: RowValue) -> Cause:
        found = self.shown.cursor.execute(
            f"SELECT source, row, epoch_us(row_at), epoch_us(known_at) FROM {ORDERED} "
            f"WHERE n = {number}"
        ).fetchone()
        assert found is not None
        source, row, at, known_at = found
        use_case = self.shown.subject.use_case
        names = use_case.sources[source].key
        keys = ", ".join(f"CAST({quote(name)} AS VARCHAR)" for name in names)
        values = (
            self.shown.cursor.execute(
                f"SELECT {keys} FROM {self.shown.relations[source]} WHERE rowid = {row}"
            ).fetchone()
            if names
            else ()
        )
        zone = use_case.calendar.timezone
        return Cause(
            source,
            dict(zip(names, map(str, values or ()), strict=True)),
            moment_at(at, zone),
            None if known_at is None else moment_at(known_at, zone),
            before,
            after,
        )


def hidden_at(moment: datetime) -> Callable[[str], str]:
    """Rows that were not known at a moment."""
    return lambda event_time: f"(known_at <= {instant(moment)}) IS NOT TRUE"


def outside(seen: Window, shown: Window) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Rows before and after a range that is seen, within one that is shown."""

    def before(event_time: str) -> str:
        return f"{quote(event_time)} < {instant(seen.start)} AND {inside_sql(shown, event_time)}"

    def after(event_time: str) -> str:
        return f"{quote(event_time)} >= {instant(seen.end)} AND {inside_sql(shown, event_time)}"

    return before, after


def _text(value: str | None) -> str:
    return "NULL" if value is None else literal(value)
