"""How much of what landed broke its contract, by source and partition."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

# A row that a later file corrects is kept in quarantine too, and nothing is wrong with it.
BROKEN = "NOT starts_with(reason, 'superseded by ')"


@dataclass(frozen=True)
class Quarantined:
    """Rows of one source and partition that broke its contract."""

    source: str
    window: Window
    rows: int
    landed: int
    """Rows that landed for the partition and were not superseded, these included."""
    reasons: Mapping[str, int]
    """How many rows broke what, the most frequent first."""

    @property
    def share(self) -> float:
        return self.rows / self.landed

    @property
    def cause(self) -> str:
        """What broke most of these rows, without the values of single rows."""
        counts: Counter[str] = Counter()
        for reason, rows in self.reasons.items():
            counts[cause_of(reason)] += rows
        return counts.most_common(1)[0][0]


def cause_of(reason: str) -> str:
    """What a reason has in common with those of other rows.

    >>> cause_of("people: '12 or so' is not a BIGINT"), cause_of("breaks the rule: people >= 0")
    ('people: a value is not a BIGINT', 'breaks the rule: people >= 0')
    >>> cause_of("duplicate key (sensor): row 17 came first")
    'duplicate key (sensor): another row came first'
    """
    if reason.startswith("breaks the rule: "):
        return reason
    return re.sub(r"\brow \d+", "another row", re.sub(r"'.*'", "a value", reason))


def read_quarantine(lake: Lake, use_case: UseCase) -> list[Quarantined]:
    """Partitions with rows that broke a contract, in order of source and time."""
    broken: dict[str, dict[datetime, dict[str, int]]] = {}
    with lake.cursor() as cursor:
        try:
            quarantine = lake.relation(cursor, use_case.name, "quarantine")
        except TableNotFound:
            return []
        counted = cursor.execute(
            f"""SELECT source, {WINDOW_START}, reason, count(*) AS rows FROM {quarantine}
            WHERE {BROKEN} GROUP BY ALL ORDER BY source, {WINDOW_START}, rows DESC, reason"""
        ).fetchall()
        for source, start, reason, count in counted:
            broken.setdefault(source, {}).setdefault(start, {})[reason] = count
        found: list[Quarantined] = []
        # A source that the use case does not declare any more is no matter of it.
        for source in broken.keys() & use_case.sources.keys():
            ingested = _count_ingested(lake, cursor, use_case, source, list(broken[source]))
            for start, reasons in broken[source].items():
                window = use_case.calendar.window_stored(start)
                rows = sum(reasons.values())
                landed = rows + ingested.get(start, 0)
                found.append(Quarantined(source, window, rows, landed, reasons))
    return sorted(found, key=lambda each: (each.source, each.window.start.astimezone(UTC)))


def _count_ingested(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    starts: Sequence[datetime],
) -> dict[datetime, int]:
    relation = lake.relation(cursor, use_case.name, source)
    counts = cursor.execute(
        f"""SELECT {WINDOW_START}, count(*) FROM {relation}
        WHERE {WINDOW_START} IN (SELECT unnest(?::TIMESTAMP[])) GROUP BY 1""",
        [list(starts)],
    ).fetchall()
    return dict(counts)
