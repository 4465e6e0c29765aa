"""At which windows and moments leaks are looked for.

A row at t that depends on what became known at k is only seen by a cut in [t, k). Rows can differ
from one event time, or one `known_at`, to the next: between two of these a cut finds nothing that
it does not find at the first of them. Where there are more of them than can be tried, some are
drawn: over the rows, and ever closer to both ends of the window. What is drawn depends on the
window and on the snapshot, so that thirty partitions try different moments, and so does a later
check of the same one.
"""

import hashlib
import math
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

GOLDEN = (math.sqrt(5) - 1) / 2
"""Multiples of it modulo 1 are spread evenly, however many are taken."""
RUN = 7
NEAREST = 2.0**-9
"""Share of a window's length: as close to its ends are moments drawn, 3 minutes of a day."""


def drawn_by(*parts: object) -> random.Random:
    """What is drawn for a window; the same parts draw the same."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return random.Random(digest)


def choose_runs(
    use_case: UseCase, lookback: Duration, windows: Sequence[Window], most: int, salt: object
) -> list[list[Window]]:
    """At most so many windows of a range, in runs of consecutive ones, in order of time.

    A run costs little more to read than one of its windows, and holds every day of the week. If a
    window of the range comes after a clock change, so that its lookback is an hour shorter or
    longer than that of the others, it is in a run.
    """
    if len(windows) <= most:
        return [list(windows)]
    length = min(RUN, most)
    count = most // length
    draw = drawn_by(use_case.name, salt, len(windows))
    starts = [
        math.floor((part + draw.random()) * (len(windows) - length + 1) / count)
        for part in range(count)
    ]
    if changed := _after_clock_changes(use_case, lookback, windows):
        change = draw.choice(changed)
        starts[change * count // len(windows)] = max(0, change - draw.randrange(length))
    chosen = sorted({n for start in starts for n in range(start, start + length)} & _all(windows))
    runs: list[list[Window]] = []
    for number in chosen:
        if number - 1 in chosen:
            runs[-1].append(windows[number])
        else:
            runs.append([windows[number]])
    return runs


def _all(windows: Sequence[Window]) -> set[int]:
    return set(range(len(windows)))


def _after_clock_changes(
    use_case: UseCase, lookback: Duration, windows: Sequence[Window]
) -> list[int]:
    """Windows that see a clock change, where the one before does not, by number."""
    zone = use_case.calendar.timezone
    seen = [lookback.before(w.start, zone).utcoffset() != w.end.utcoffset() for w in windows]
    return [n for n in range(1, len(windows)) if seen[n] and not seen[n - 1]]


class Way(Enum):
    """How a moment is drawn."""

    ROW = "event time of a row"
    START = "close to the window's start"
    END = "close to the window's end"
    KNOWN = "moment at which a source row became known"


WAYS = (Way.ROW, Way.START, Way.ROW, Way.END, Way.ROW, Way.KNOWN)
"""In this order; windows with one draw each begin at different places of it."""


@dataclass(frozen=True)
class Candidates:
    """Moments of one window at which its rows can differ, in microseconds and in order."""

    rows: Sequence[int]
    """From which on a row may depend on nothing more. A row that reaches ahead is seen here, if
    anywhere: what any later moment shows of it, the last of these before that moment shows too."""
    known: Sequence[int]
    """At which source rows became known, where no row lies: one appears there that only the
    future leaves out."""

    def near(self, moment: int) -> int:
        """The last one of both up to a moment, or else the first."""
        before = [
            moments[max(bisect_right(moments, moment) - 1, 0)]
            for moments in (self.rows, self.known)
            if moments
        ]
        return max((m for m in before if m <= moment), default=min(before))


def choose_moments(
    candidates: Candidates,
    bounds: tuple[int, int],
    count: int,
    draw: random.Random,
    turn: int = 0,
) -> tuple[int, ...]:
    """So many of the moments at which a window's rows can differ, in order.

    The last one at which a row lies is among them: it sees whatever reaches beyond the window.

    bounds: of the window, in microseconds; turn: number of the window among those that are checked
    with it, so that few draws in each of them are of every kind.
    """
    every = sorted({*candidates.rows, *candidates.known})
    if len(every) <= count:
        return tuple(every)
    start, end = bounds
    chosen = {(candidates.rows or every)[-1]}
    offset = draw.random()
    # Several draws may name one moment; drawn too often, the rest is taken evenly.
    for number in range(8 * count):
        if len(chosen) == count:
            break
        share = (offset + number * GOLDEN) % 1
        distance = round((end - start) * NEAREST**share)
        match WAYS[(number + turn) % len(WAYS)]:
            case Way.START:
                chosen.add(candidates.near(start + distance))
            case Way.END:
                chosen.add(candidates.near(end - distance))
            case way:
                of = candidates.known if way is Way.KNOWN else candidates.rows
                of = of or every
                chosen.add(of[math.floor(share * len(of))])
    spare = (moment for moment in every if moment not in chosen)
    while len(chosen) < count:
        chosen.add(next(spare))
    return tuple(sorted(chosen))
