"""Which windows of which tables are computed together."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_platform.spec.windows import Calendar, Window, utc


@dataclass(frozen=True)
class JointRun:
    """Ranges of tables that one run computes, in the order in which tables depend."""

    ranges: Mapping[str, Window]

    @property
    def covering_range(self) -> Window:
        """What lies between the first start and the last end of any table."""
        starts, ends = zip(*((s.start, s.end) for s in self.ranges.values()), strict=True)
        return Window(min(starts, key=utc), max(ends, key=utc))


def joint_runs(calendar: Calendar, wanted: Mapping[str, Collection[Window]]) -> list[JointRun]:
    """As few runs as the wanted windows need: those whose ranges overlap or touch share one.

    In a run each table has one range, so what lies between two of its own is computed along.
    """
    found = [
        (utc(window_range.start), utc(window_range.end), table, window_range)
        for table, windows in wanted.items()
        for window_range in calendar.ranges(windows)
    ]
    groups: list[dict[str, Window]] = []
    until: datetime | None = None
    for start, end, table, window_range in sorted(found, key=lambda item: item[:3]):
        if until is None or start > until:
            groups.append({})
        until = end if until is None or end > until else until
        before = groups[-1].get(table)
        groups[-1][table] = Window(before.start, window_range.end) if before else window_range
    return [JointRun(group) for group in groups]
