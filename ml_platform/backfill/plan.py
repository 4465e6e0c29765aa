"""What a backfill computes, and in which pieces."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.backfill.staleness import PartitionState, Standing, States
from ml_platform.spec.tables import reads_of, tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Calendar, Window
from ml_platform.storage.tables import naive_utc

# Starting a run takes as long as computing dozens of partitions, so one run computes a few fresh
# ones again, which changes nothing, where that saves another run.
BRIDGED_PARTITIONS = 30

Due = Mapping[str, Collection[Window]]
"""Windows to compute, by table."""


@dataclass(frozen=True)
class Chunk:
    """A range of windows that one run computes for some tables."""

    due: Mapping[str, int]
    """Partitions that have to be computed, by table, in the order in which tables depend."""
    windows: tuple[Window, ...]
    """All of its windows, in order, without a gap."""

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(self.due)

    @property
    def partitions(self) -> int:
        """Partitions that have to be computed, of all its tables."""
        return sum(self.due.values())

    @property
    def by_table(self) -> "list[Chunk]":
        """The same as a chunk for each table."""
        return [Chunk({table: count}, self.windows) for table, count in self.due.items()]

    @property
    def range(self) -> Window:
        return Window(self.windows[0].start, self.windows[-1].end)

    def keys(self, calendar: Calendar) -> tuple[str, str]:
        """Names of the first and the last partition."""
        return calendar.key(self.windows[0]), calendar.key(self.windows[-1])


def due_with_followers(
    use_case: UseCase, states: States, every: bool = False, requested: Due | None = None
) -> Due:
    """Windows that are due, and those that will be once these have been computed.

    Only of tables that have been judged, and of those in `requested`: windows that are computed
    first. every: fresh ones too.
    """
    found = {table: set(windows) for table, windows in (requested or {}).items()}
    for table in tables_of(use_case):
        if table in states:
            followers = _Followers(use_case, table, found)
            found[table] = {
                window
                for window, state in states[table].items()
                if state.is_due
                or (every and state.standing is Standing.fresh)
                or followers.includes(window, state)
            }
    return found


def chunks(use_case: UseCase, due: Due, longest: int | None = None) -> Iterator[Chunk]:
    """The pieces in which due windows are computed, oldest first.

    longest: windows of a piece; by default one piece wherever no long range is fresh.
    """
    calendar = use_case.calendar
    starts = sorted({naive_utc(w.start) for windows in due.values() for w in windows})
    if not starts:
        return
    by_start = {naive_utc(w.start): w for windows in due.values() for w in windows}
    first, last = by_start[starts[0]], by_start[starts[-1]]
    piece: list[Window] = []
    gap: list[Window] = []
    for window in calendar.windows(Window(first.start, last.end)):
        if naive_utc(window.start) not in by_start:
            gap.append(window)
            continue
        joined = [*piece, *gap, window]
        if piece and (len(gap) > BRIDGED_PARTITIONS or len(joined) > (longest or len(joined))):
            yield _chunk(use_case, due, piece)
            joined = [window]
        piece, gap = joined, []
    yield _chunk(use_case, due, piece)


def _chunk(use_case: UseCase, due: Due, windows: Sequence[Window]) -> Chunk:
    among = set(windows)
    counts = {table: len(among & set(due.get(table, ()))) for table in tables_of(use_case)}
    return Chunk({table: count for table, count in counts.items() if count}, tuple(windows))


class _Followers:
    """Windows of one table that become due because others are."""

    def __init__(self, use_case: UseCase, table: str, due: Mapping[str, set[Window]]) -> None:
        self.calendar = use_case.calendar
        self.reads = [r for r in reads_of(use_case, table) if due.get(r.table)]
        self.starts: dict[str, set[datetime]] = {
            read.table: {naive_utc(w.start) for w in due[read.table]} for read in self.reads
        }

    def includes(self, window: Window, state: PartitionState) -> bool:
        """Whether something that the window sees is due, and everything that it lacks."""
        seen = {read.table for read in self.reads if self._sees(read.table, read.range(window))}
        return bool(seen) and state.lacks <= seen

    def _sees(self, table: str, window_range: Window) -> bool:
        starts = self.starts[table]
        return any(naive_utc(w.start) in starts for w in self.calendar.windows(window_range))
