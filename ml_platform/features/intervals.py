"""The intervals between the corrections that a window sees: nothing of it changes in one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise

from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage.tables import WINDOW_START, naive_utc

JUST_BEFORE = timedelta(microseconds=1)
EPOCH = datetime.fromtimestamp(0, UTC)
MOST_A_STEP = 8
"""So many corrections of what a window sees count at each of the steps, those after it at the next.

A row of a table that is updated all day would otherwise let its window be computed each time.
"""
STEPS = (None, timedelta(hours=1), timedelta(days=1), timedelta(days=28))


@dataclass(frozen=True)
class Interval:
    """Between two corrections that a window sees: nothing of it changes."""

    window: Window
    as_of: datetime
    """A moment at which the sources were known as they are shown in it."""
    since: datetime | None
    until: datetime | None


def _corrections(
    known: KnownVersions, reads: Sequence[str], reach: Window
) -> dict[Window, set[datetime]]:
    """When rows of each window of the sources were corrected."""
    use_case = known.use_case
    found: dict[Window, set[datetime]] = {}
    first = naive_utc(use_case.calendar.window_at(reach.start).start)
    where = (
        f"{WINDOW_START} >= TIMESTAMP '{first}' "
        f"AND {WINDOW_START} < TIMESTAMP '{naive_utc(reach.end)}'"
    )
    for source in reads:
        versions = known.sql(source, where)
        if versions is None:
            continue
        rows = known.cursor.execute(
            f"""SELECT DISTINCT {WINDOW_START}, unnest([
                CASE WHEN {KNOWN_FROM} > known_at OR {KNOWN_FROM} > min({KNOWN_FROM}) OVER (
                    PARTITION BY {WINDOW_START}, {", ".join(map(quote, _key(use_case, source)))}
                ) THEN {KNOWN_FROM} END, {KNOWN_UNTIL}]) AS moment
            FROM {versions}"""
        ).fetchall()
        for start, moment in rows:
            if moment is not None:
                window = use_case.calendar.window_stored(start)
                found.setdefault(window, set()).add(utc(moment))
    return found


def _key(use_case: UseCase, source: str) -> tuple[str, ...]:
    return use_case.sources[source].key


def intervals_of(
    known: KnownVersions,
    reads: Sequence[str],
    reach: Callable[[Window], Window],
    window_range: Window,
) -> Iterable[Interval]:
    """The intervals of each window that rows of it can be asked about in, the last one open.

    reads: sources; reach: the range of their event time that a window sees. Windows that saw no
    correction since they began have none.
    """
    corrections = _corrections(known, reads, reach(window_range))
    if not corrections:
        return
    for window in known.use_case.calendar.windows(window_range):
        seen = reach(window)
        first, end = utc(seen.start), utc(seen.end)
        moments = {
            moment
            for corrected, found in corrections.items()
            if utc(corrected.start) < end and utc(corrected.end) > first
            for moment in found
            # Rows of a window that begins after a correction never knew anything else.
            if moment > utc(window.start)
        }
        if moments:
            before = min(moments) - JUST_BEFORE
            for since, until in pairwise([None, *effective(moments), None]):
                yield Interval(window, since or before, since, until)


def effective(moments: Iterable[datetime]) -> list[datetime]:
    """From when on the corrections of what a window sees count, each at its moment or later.

    The first ones count at once, later ones at full steps. A correction has no say in when earlier
    ones count, so that what was known before it stays as it was.

    >>> [str(at)[:16] for at in effective(EPOCH + timedelta(minutes=n) for n in range(200))[-3:]]
    ['1970-01-01 02:00', '1970-01-01 03:00', '1970-01-01 04:00']
    """
    found: list[datetime] = []
    for moment in sorted(moments):
        if not found or moment > found[-1]:
            step = STEPS[min(len(found) // MOST_A_STEP, len(STEPS) - 1)]
            found.append(moment if step is None else moment + (EPOCH - moment) % step)
    return found


def runs_of(intervals: Sequence[Interval]) -> Iterable[list[Interval]]:
    """Intervals of consecutive windows, which one query can compute."""
    run: list[Interval] = []
    for interval in intervals:
        if run and run[-1].window.end != interval.window.start:
            yield run
            run = []
        run.append(interval)
    yield run
