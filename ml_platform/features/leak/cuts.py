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


def choose_moments(
    candidates: Sequence[int], bounds: tuple[int, int], count: int, draw: random.Random
) -> tuple[int, ...]:
    """So many of the moments at which a window's rows can change, in order; the last is among them.

    candidates: moments in ascending order, in microseconds, as the window's bounds are.
    """
    if len(candidates) <= count:
        return tuple(candidates)
    start, end = bounds
    chosen = {len(candidates) - 1}
    offset, first = draw.random(), draw.randrange(3)
    # Several draws may name one moment; drawn too often, the rest is taken evenly.
    for number in range(8 * count):
        if len(chosen) == count:
            break
        share = (offset + number * GOLDEN) % 1
        distance = round((end - start) * NEAREST**share)
        match (number + first) % 3:
            case 0:
                place = math.floor(share * len(candidates))
            case 1:
                place = bisect_right(candidates, start + distance) - 1
            case _:
                place = bisect_right(candidates, end - distance) - 1
        chosen.add(max(place, 0))
    spare = (number for number in range(len(candidates)) if number not in chosen)
    while len(chosen) < count:
        chosen.add(next(spare))
    return tuple(candidates[place] for place in sorted(chosen))
