"""How much of what landed broke its contract, by source and partition."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC

from ml_platform.errors import TableNotFound
from ml_platform.spec.queries import literal
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


def read_quarantine(lake: Lake, use_case: UseCase) -> list[Quarantined]:
    """Partitions with rows that broke a contract, in order of source and time."""
    found: list[Quarantined] = []
    with lake.cursor() as cursor:
        try:
            quarantine = lake.relation(cursor, use_case.name, "quarantine")
        except TableNotFound:
            return []
        for source in use_case.sources:
            rows = lake.relation(cursor, use_case.name, source)
            broken = cursor.execute(
                f"""WITH broken AS (
                    SELECT {WINDOW_START}, reason, count(*) AS n FROM {quarantine}
                    WHERE source = {literal(source)} AND {BROKEN} GROUP BY ALL),
                ingested AS (
                    SELECT {WINDOW_START}, count(*) AS n FROM {rows}
                    SEMI JOIN broken USING ({WINDOW_START}) GROUP BY ALL)
                SELECT {WINDOW_START}, sum(b.n)::BIGINT, coalesce(any_value(i.n), 0),
                    list(b.reason ORDER BY b.n DESC, b.reason),
                    list(b.n ORDER BY b.n DESC, b.reason)
                FROM broken b LEFT JOIN ingested i USING ({WINDOW_START}) GROUP BY 1 ORDER BY 1"""
            ).fetchall()
            found += [
                Quarantined(
                    source,
                    use_case.calendar.window_at(start.replace(tzinfo=UTC)),
                    count,
                    count + ingested,
                    dict(zip(reasons, counts, strict=True)),
                )
                for start, count, ingested, reasons, counts in broken
            ]
    return found
