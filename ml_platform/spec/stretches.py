"""Which windows of which tables are computed together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_platform.spec.windows import Calendar, Window, utc


@dataclass(frozen=True)
class Together:
    """Stretches of tables that one run computes, in the order in which tables depend."""

    stretches: Mapping[str, Window]

    @property
    def hull(self) -> Window:
        """What lies between the first start and the last end of any table."""
        starts, ends = zip(*((s.start, s.end) for s in self.stretches.values()), strict=True)
        return Window(min(starts, key=utc), max(ends, key=utc))


def together(calendar: Calendar, wanted: Mapping[str, Collection[Window]]) -> list[Together]:
    """As few runs as the wanted windows need: those whose stretches overlap or touch share one.

    In a run each table has one stretch, so what lies between two of its own is computed along.
    """
    found = [
        (utc(stretch.start), utc(stretch.end), table, stretch)
        for table, windows in wanted.items()
        for stretch in calendar.stretches(windows)
    ]
    groups: list[dict[str, Window]] = []
    until: datetime | None = None
    for start, end, table, stretch in sorted(found, key=lambda item: item[:3]):
        if until is None or start > until:
            groups.append({})
        until = end if until is None or end > until else until
        before = groups[-1].get(table)
        groups[-1][table] = Window(before.start, stretch.end) if before else stretch
    return [Together(group) for group in groups]
