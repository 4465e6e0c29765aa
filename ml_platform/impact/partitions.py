"""Which partitions may have been computed from some rows: by ranges of event time, and snapshots.

A partition has read what its table declares to read, at the snapshot that its computation began
at. Where that was before the rows were there, it has not read them, whatever it reads.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import duckdb

from ml_platform.backfill.computation_history import Evidence, gather
from ml_platform.impact.subjects import Subject
from ml_platform.spec.tables import Reads, reads_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Calendar, Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range
from ml_platform.storage.tables import naive_utc

APART = timedelta(days=2)
"""Where a zone skips a whole day, hours before it reach a day farther than those after it: between
windows that see something there may be others for so long."""


@dataclass(frozen=True)
class TableImpact:
    """Partitions of one table that reach the rows, each list in order of time."""

    read: tuple[Window, ...]
    """Those that may have read them: computed since, from a range of event time that holds them."""
    changed: frozenset[Window] = field(default_factory=frozenset)
    """Those of them that hold other rows since, for whatever reason."""
    before: tuple[Window, ...] = ()
    """Those that would read them, and were computed before they were there and not since."""


@dataclass(frozen=True)
class Touched:
    """A range of event time of one table with something to read since a snapshot."""

    range: Window
    since: int


def touched_by(subject: Subject) -> dict[str, list[Touched]]:
    """What downstream tables find of a subject in its source."""
    return {subject.source: [Touched(each.range, each.since) for each in subject.spans.values()]}


@dataclass(frozen=True)
class Followed:
    """Where ranges of some tables lead to."""

    tables: Mapping[str, TableImpact]
    """Tables with partitions that reach them, each after those that it reads."""
    touched: Mapping[str, Sequence[Touched]]
    """By table what others may have read there, in order of time; the origin is part of it."""


def follow(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    origin: Mapping[str, Sequence[Touched]],
    tables: Iterable[str],
    *,
    predicted_from: datetime | None = None,
) -> Followed:
    """What tables may have read of ranges of others, directly or through tables between them.

    origin: by table; tables: to look at, each after those that it reads. predicted_from: no
    prediction of an example before this moment has read any of it.
    """
    asked = tuple(tables)
    reach = _reach(use_case, origin, asked)
    evidence = gather(lake, cursor, use_case, {t: r for t, r in reach.items() if t in asked})
    touched = {table: _in_order(ranges) for table, ranges in origin.items()}
    found = {}
    for table in asked:
        after = predicted_from if table == "predictions" else None
        known = _TouchedReads(use_case, touched, table)
        impact, entries = known.judge(evidence, after)
        if impact.read or impact.before:
            found[table] = impact
        if entries:
            touched[table] = _in_order([*touched.get(table, ()), *entries])
    return Followed(found, touched)


class _TouchedReads:
    """What one table reads of what has been touched so far."""

    def __init__(
        self, use_case: UseCase, touched: Mapping[str, Sequence[Touched]], table: str
    ) -> None:
        self.calendar, self.table = use_case.calendar, table
        self.upstream = [
            _TouchedUpstream(read, touched[read.table])
            for read in reads_of(use_case, table)
            if touched.get(read.table)
        ]

    def judge(
        self, evidence: Evidence, after: datetime | None
    ) -> tuple[TableImpact, list[Touched]]:
        read, before, changed, entries = [], [], set(), []
        for start, made in evidence.get(self.table, {}).items():
            window = self.calendar.window_stored(start)
            if after is not None and utc(window.end) <= utc(after):
                continue
            since = self.since(window)
            if since is None:
                continue
            if made.begun_at < since:
                before.append(window)
                continue
            read.append(window)
            entries.append(Touched(window, since))
            if made.changed_at >= since:
                changed.add(window)
        impact = TableImpact(_ordered(read), frozenset(changed), _ordered(before))
        return impact, entries

    def since(self, window: Window) -> int | None:
        """From which snapshot on there was something for a window to read; None where never."""
        found = [since for each in self.upstream if (since := each.since(window)) is not None]
        return min(found, default=None)


class _TouchedUpstream:
    """What has been touched of one table that another one reads; no two ranges overlap."""

    def __init__(self, read: Reads, touched: Sequence[Touched]) -> None:
        self.read = read
        self.starts = [naive_utc(each.range.start) for each in touched]
        self.ends = [naive_utc(each.range.end) for each in touched]
        self.snapshots = [each.since for each in touched]

    def since(self, window: Window) -> int | None:
        seen = self.read.range(window)
        first = bisect_right(self.ends, naive_utc(seen.start))
        past = bisect_left(self.starts, naive_utc(seen.end))
        return min(self.snapshots[first:past], default=None)


def _reach(
    use_case: UseCase, origin: Mapping[str, Sequence[Touched]], tables: Sequence[str]
) -> dict[str, Range]:
    """The windows of each table that can reach what is touched, from the first to the last."""
    covered = {
        table: covering_range([each.range for each in ranges]) for table, ranges in origin.items()
    }
    for table in tables:
        own = [covered[table]] if table in covered else []
        found = [
            readers(use_case.calendar, read, covered[read.table])
            for read in reads_of(use_case, table)
            if read.table in covered
        ]
        if found or own:
            covered[table] = covering_range([*own, *found])
    return {
        table: Range(naive_utc(use_case.calendar.window_at(h.start).start), naive_utc(h.end))
        for table, h in covered.items()
    }


def readers(calendar: Calendar, read: Reads, touched: Window) -> Window:
    """From the first to the last window that reads something of a range."""

    def sees(window: Window) -> bool:
        seen = read.range(window)
        return utc(seen.start) < utc(touched.end) and utc(seen.end) > utc(touched.start)

    first = calendar.window_at(touched.start)
    last = calendar.window_at(utc(touched.end) - datetime.resolution)
    start = _farthest(calendar, first, sees, -1).start
    return Window(start, _farthest(calendar, last, sees, +1).end)


def _farthest(
    calendar: Calendar, near: Window, sees: Callable[[Window], bool], sign: int
) -> Window:
    """The last window in one direction that sees something.

    Found in steps that double, since a time to live may span very many windows.
    """
    while True:
        found = next(filter(sees, _beside(calendar, near, sign)), None)
        if found is None:
            return near
        near, step = found, timedelta(hours=1)
        while sees(farther := calendar.window_at(utc(near.start) + sign * step)):
            near, step = farther, 2 * step


def _beside(calendar: Calendar, window: Window, sign: int) -> Iterator[Window]:
    """The next windows in one direction, as many as `APART` holds, at least one."""
    edge = utc(window.end if sign > 0 else window.start)
    last = edge + sign * APART
    while (edge < last) if sign > 0 else (edge > last):
        beside = calendar.window_at(edge if sign > 0 else edge - datetime.resolution)
        yield beside
        edge = utc(beside.end if sign > 0 else beside.start)


def spanned(touched: Iterable[Touched]) -> Window:
    """From where the first range begins to where the last one ends."""
    return covering_range([each.range for each in touched])


def covering_range(ranges: Sequence[Window]) -> Window:
    """From the first start to the last end."""
    start = min((each.start for each in ranges), key=utc)
    return Window(start, max((each.end for each in ranges), key=utc))


def _in_order(entries: Iterable[Touched]) -> list[Touched]:
    return sorted(entries, key=lambda each: utc(each.range.start))


def _ordered(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(sorted(windows, key=lambda window: utc(window.start)))
