"""Which partitions are missing, failed, stale or fresh, and why.

The lake decides: it knows by which code a window was last computed, and what has changed since.
An upstream window that was written again without a change has not changed. What only Dagster knows,
that a run failed, is handed in.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ml_platform.backfill.computation_history import (
    LOST,
    Evidence,
    Made,
    gather,
    landed,
    versions,
)
from ml_platform.registry import Promotion, champion_if_any, history
from ml_platform.spec.tables import BY_CHAMPION, Reads, code_versions, reads_of, tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, require_calendar
from ml_platform.storage.changes import Range, last_changes
from ml_platform.storage.tables import naive_utc


class Standing(StrEnum):
    """Whether a partition has to be computed."""

    fresh = "fresh"
    empty = "empty"
    """There is nothing to compute: no input, no champion, or it came out without rows."""
    missing = "missing"
    stale = "stale"
    failed = "failed"
    """It has to be computed, and the last run that tried failed."""


@dataclass(frozen=True)
class PartitionState:
    """Where one partition stands."""

    standing: Standing
    why: str = ""
    inputs_at: int = 0
    """Snapshot of the latest change in what it is computed from."""
    lacks: frozenset[str] = frozenset()
    """Tables that need rows before it can be computed; `promotions` where there is no champion."""

    @property
    def is_due(self) -> bool:
        return self.standing in {Standing.missing, Standing.stale, Standing.failed}


States = Mapping[str, Mapping[Window, PartitionState]]
"""By table and window, both in order."""


def judge(
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    tables: Collection[str] | None = None,
    failed: Mapping[str, Collection[Window]] | None = None,
) -> States:
    """The state of every partition of a range; of all tables unless some are named.

    failed: windows whose latest run failed, by table.
    """
    windows = list(use_case.calendar.windows(window_range))
    asked = [table for table in tables_of(use_case) if tables is None or table in tables]
    if not windows:
        return {table: {} for table in asked}
    known = _look(lake, use_case, asked, Window(windows[0].start, windows[-1].end))
    found = {}
    for table in asked:
        judge_one = _TableJudge(known, table)
        lost = set((failed or {}).get(table, ()))
        found[table] = {window: _failed(judge_one(window), window in lost) for window in windows}
    return found


@dataclass(frozen=True)
class _LakeFacts:
    use_case: UseCase
    evidence: Evidence
    codes: Mapping[str, str]
    promotions: Sequence[Promotion]
    promotions_at: int
    versions: Mapping[str, Mapping[datetime, int]]
    landed: Mapping[str, Mapping[datetime, int]]


def _look(lake: Lake, use_case: UseCase, asked: Sequence[str], judged: Window) -> _LakeFacts:
    own = _range(use_case, judged)
    by_champion = {table: BY_CHAMPION[table] for table in asked if table in BY_CHAMPION}
    with lake.cursor() as cursor:
        require_calendar(cursor, use_case.name, use_case.calendar)
        return _LakeFacts(
            use_case,
            gather(lake, cursor, use_case, _seen(use_case, asked, judged)),
            code_versions(use_case),
            history(lake, use_case) if by_champion else (),
            last_changes(cursor, "promotions").get(use_case.name, 0) if by_champion else 0,
            {t: versions(lake, cursor, use_case, t, c, own) for t, c in by_champion.items()},
            {t: landed(lake, cursor, use_case, t, own) for t in asked if t in use_case.sources},
        )


def _seen(use_case: UseCase, asked: Sequence[str], judged: Window) -> dict[str, Range]:
    """The windows that judging a range has to know of, by table: its own and what they see."""
    found = dict.fromkeys(asked, _range(use_case, judged))
    for read in (read for table in asked for read in reads_of(use_case, table)):
        seen = _range(use_case, read.range(judged))
        known = found.get(read.table, seen)
        found[read.table] = Range(min(known.first, seen.first), max(known.last, seen.last))
    return found


def _range(use_case: UseCase, covered: Window) -> Range:
    first = use_case.calendar.window_at(covered.start).start
    return Range(naive_utc(first), naive_utc(covered.end))


class _TableJudge:
    """Judges the windows of one table."""

    def __init__(self, known: _LakeFacts, table: str) -> None:
        self.known = known
        self.table = table
        self.made = known.evidence.get(table, {})
        self.landed = known.landed.get(table, {})
        self.upstream = [_Upstream(read, known) for read in reads_of(known.use_case, table)]

    def __call__(self, window: Window) -> PartitionState:
        made = self.made.get(naive_utc(window.start))
        inputs_at, newest = self._latest_input(window)
        if made is None or not made.has_rows:
            lacks = self._lacks(window)
            if lacks or (made is None and not self._has_inputs(window)):
                return PartitionState(Standing.empty, self._why_empty(lacks), inputs_at, lacks)
        if made is None:
            return PartitionState(Standing.missing, "never computed", inputs_at)
        # What a source was ingested from is noted in the same transaction.
        seen = max(made.begun_at, 0 if self.upstream else made.changed_at)
        outdated = f"{newest} has changed since" if inputs_at > seen else None
        if made.code_version not in {None, self.known.codes[self.table]}:
            lost = made.code_version == LOST
            outdated = "its data file was lost" if lost else "made by older code"
        if outdated := outdated or self._other_champion(window, made):
            return PartitionState(Standing.stale, outdated, inputs_at)
        if not made.has_rows:
            return PartitionState(
                Standing.empty, made.reason or "it came out without rows", inputs_at
            )
        return PartitionState(Standing.fresh, "", inputs_at)

    def _lacks(self, window: Window) -> frozenset[str]:
        lacking = {
            u.read.table for u in self.upstream if u.read.required and not u.has_rows(window)
        }
        if self._is_by_champion and self._champion(window) is None:
            lacking.add("promotions")
        return frozenset(lacking)

    def _latest_input(self, window: Window) -> tuple[int, str]:
        if not self.upstream:
            return self.landed.get(naive_utc(window.start), 0), "landing"
        return max((each.latest(window), each.read.table) for each in self.upstream)

    def _has_inputs(self, window: Window) -> bool:
        if not self.upstream:
            return naive_utc(window.start) in self.landed
        return any(each.has_rows(window) for each in self.upstream)

    def _why_empty(self, lacks: Collection[str]) -> str:
        if "promotions" in lacks:
            return "no champion yet"
        if not self.upstream:
            return "nothing has landed"
        return f"{', '.join(sorted(lacks) or [u.read.table for u in self.upstream])} has no rows"

    def _other_champion(self, window: Window, made: Made) -> str | None:
        if not self._is_by_champion:
            return None
        champion = self._champion(window)
        by = self.known.versions[self.table].get(naive_utc(window.start))
        if by is not None and champion is not None and by != champion:
            return f"made by version {by}, version {champion} serves"
        if by is None and champion is not None and self.known.promotions_at > made.begun_at:
            return "there was another champion"
        return None

    @property
    def _is_by_champion(self) -> bool:
        if self.table == "predictions" and self.known.use_case.scored_by_any_version:
            return False
        return self.table in BY_CHAMPION

    def _champion(self, window: Window) -> int | None:
        return champion_if_any(self.known.promotions, window.start)


class _Upstream:
    """The windows of one table that another table reads."""

    def __init__(self, read: Reads, known: _LakeFacts) -> None:
        self.read = read
        self.calendar = known.use_case.calendar
        made = sorted(known.evidence.get(read.table, {}).items())
        self.starts = [start for start, _ in made]
        self.changed_at = Greatest([each.changed_at for _, each in made])
        self.filled = [start for start, each in made if each.has_rows]

    def latest(self, window: Window) -> int:
        return self.changed_at.within(*self._places(window, self.starts))

    def has_rows(self, window: Window) -> bool:
        first, end = self._places(window, self.filled)
        return first < end

    def _places(self, window: Window, starts: Sequence[datetime]) -> tuple[int, int]:
        seen = self.read.range(window)
        first = naive_utc(self.calendar.window_at(seen.start).start)
        return bisect_left(starts, first), bisect_left(starts, naive_utc(seen.end))


class Greatest:
    """Numbers of which the greatest of any slice is found in two steps.

    >>> numbers = Greatest([3, 1, 2])
    >>> numbers.within(1, 3), numbers.within(0, 3), numbers.within(2, 2)
    (2, 3, 0)
    """

    def __init__(self, numbers: list[int]) -> None:
        # The k-th list holds the greatest of each 2 ** k numbers in a row.
        self._levels = [numbers]
        width = 1
        while 2 * width <= len(numbers):
            before = self._levels[-1]
            self._levels.append(list(map(max, before, before[width:])))
            width *= 2

    def within(self, first: int, end: int) -> int:
        """The greatest of `numbers[first:end]`; 0 where that is empty."""
        if first >= end:
            return 0
        level = (end - first).bit_length() - 1
        greatest = self._levels[level]
        return max(greatest[first], greatest[end - (1 << level)])


def due(states: Mapping[Window, PartitionState]) -> list[Window]:
    """The windows that have to be computed, in order of time."""
    return [window for window, state in states.items() if state.is_due]


def counts(states: Iterable[PartitionState]) -> dict[Standing, int]:
    """How many partitions stand where."""
    found = dict.fromkeys(Standing, 0)
    for state in states:
        found[state.standing] += 1
    return found


def _failed(state: PartitionState, lost: bool) -> PartitionState:
    if lost and state.is_due:
        return PartitionState(Standing.failed, f"its last run failed; {state.why}", state.inputs_at)
    return state
