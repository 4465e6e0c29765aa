"""Which windows of which tables are computed together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from ml_platform.spec.windows import Window


@dataclass(frozen=True)
class Together:
    """Stretches of tables that one run computes, in the order in which tables depend."""

    stretches: Mapping[str, tuple[Window, Window]]
    """First and last window of each table."""

    @property
    def hull(self) -> tuple[Window, Window]:
        """First and last window of any table."""
        firsts, lasts = zip(*self.stretches.values(), strict=True)
        return min(firsts, key=_start), max(lasts, key=_start)


def contiguous(windows: Sequence[Window]) -> Iterator[tuple[Window, Window]]:
    """First and last window of each unbroken run of windows, given in order."""
    if not windows:
        return
    first = windows[0]
    for one, other in pairwise(windows):
        if _end(one) != _start(other):
            yield first, one
            first = other
    yield first, windows[-1]


def together(wanted: Mapping[str, Collection[Window]]) -> list[Together]:
    """As few runs as the wanted windows need: those whose stretches overlap or touch share one.

    In a run each table has one stretch, so what lies between two of its own is computed along.
    """
    found = [
        (_start(first), _end(last), table, first, last)
        for table, windows in wanted.items()
        for first, last in contiguous(sorted(windows, key=_start))
    ]
    groups: list[dict[str, tuple[Window, Window]]] = []
    until: datetime | None = None
    for start, end, table, first, last in sorted(found, key=lambda item: item[:3]):
        if until is None or start > until:
            groups.append({})
        until = end if until is None or end > until else until
        before = groups[-1].get(table)
        groups[-1][table] = (before[0] if before else first, last)
    return [Together(group) for group in groups]


def _start(window: Window) -> datetime:
    return window.start.astimezone(UTC)


def _end(window: Window) -> datetime:
    return window.end.astimezone(UTC)
