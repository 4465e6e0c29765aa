"""What tables cost to compute: seconds, rows, bytes and engine, by use case, table and day.

Each transaction of the lake says in its commit how long its work took and how many rows it wrote,
each model version in its tags. A run that found everything as it was writes nothing, and is not
counted.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from itertools import groupby
from typing import Any

from ml_platform.registry import Registry
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import BYTES, ROWS, SECONDS, Lake
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import ENGINE
from ml_platform.storage.tables import naive_utc

MODEL = "model"
IN_PROCESS = "in process"


@dataclass(frozen=True)
class Cost:
    """What one table took on one day."""

    use_case: str
    table: str
    """Or `model`, for what training took; checks for leaks have lines of their own."""
    day: date | None
    """By the use case's clocks; None where days are summed."""
    engine: str
    runs: int
    seconds: float
    """By the clock, from when inputs were first read to the commit."""
    rows: int
    """Written, of a table of others published; of a model, those that it was fitted and judged on.
    """
    bytes: int
    """Of the Parquet files that were written and are still there. Little data lies in the catalog
    and counts none; neither does a model. Of a table of others, those of the published columns in
    the form of Arrow: no two databases store a row in as many."""


def read_costs(lake: Lake, use_case: UseCase, since: datetime) -> tuple[Cost, ...]:
    """What each table of a use case took on each day since a moment, in order of table and day."""
    return _together(_of_tables(lake, use_case, since))


def training_costs(registry: Registry, use_case: UseCase, since: datetime) -> tuple[Cost, ...]:
    """What training took on each day since a moment, in order; asks MLflow."""
    return _together(_of_training(registry, use_case, since))


def summed(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """The same with all days together."""
    return _together(replace(cost, day=None) for cost in costs)


def costs_document(costs: Iterable[Cost]) -> list[dict[str, Any]]:
    """Plain data with keys that stay; days in ISO 8601."""
    return [
        {
            **asdict(cost),
            "day": cost.day and cost.day.isoformat(),
            "seconds": round(cost.seconds, 3),
        }
        for cost in costs
    ]


def _together(costs: Iterable[Cost]) -> tuple[Cost, ...]:
    """Those of the same table, day and engine as one, in this order."""

    def key(cost: Cost) -> tuple[str, str, date, str]:
        return cost.use_case, cost.table, cost.day or date.min, cost.engine

    groups = (list(group) for _, group in groupby(sorted(costs, key=key), key))
    return tuple(
        replace(
            group[0],
            runs=sum(cost.runs for cost in group),
            seconds=sum(cost.seconds for cost in group),
            rows=sum(cost.rows for cost in group),
            bytes=sum(cost.bytes for cost in group),
        )
        for group in groups
    )


def _of_tables(lake: Lake, use_case: UseCase, since: datetime) -> list[Cost]:
    prefix = f"{use_case.name}/"
    with lake.cursor(use_case.timezone) as cursor:
        rows = cursor.execute(
            f"""
            WITH said AS (
                SELECT snapshot AS snapshot_id, message AS written, made_at AS moment, extra
                FROM {lake.commits(cursor, timed=True)}
                WHERE starts_with(message, {literal(prefix)})
                AND json_extract_string(extra, '$.{SECONDS}') IS NOT NULL
                AND timezone('UTC', made_at) >= TIMESTAMP {literal(str(naive_utc(since)))}),
            files AS (
                SELECT begin_snapshot, CAST(sum(file_size_bytes) AS BIGINT) AS bytes
                FROM {METADATA}.ducklake_data_file
                WHERE begin_snapshot >= (SELECT min(snapshot_id) FROM said) GROUP BY ALL)
            SELECT written, CAST(moment AS DATE),
                coalesce(json_extract_string(extra, '$.{ENGINE}'), {literal(IN_PROCESS)}),
                count(DISTINCT json_extract_string(extra, '$.run_id')),
                sum(CAST(json_extract_string(extra, '$.{SECONDS}') AS DOUBLE)),
                CAST(coalesce(sum(CAST(json_extract_string(extra, '$.{ROWS}') AS BIGINT)), 0)
                    AS BIGINT),
                CAST(coalesce(sum(
                    coalesce(CAST(json_extract_string(extra, '$.{BYTES}') AS BIGINT), bytes)), 0)
                    AS BIGINT)
            FROM said LEFT JOIN files ON begin_snapshot = snapshot_id GROUP BY ALL
            """
        ).fetchall()
    return [Cost(use_case.name, written.removeprefix(prefix), *rest) for written, *rest in rows]


def _of_training(registry: Registry, use_case: UseCase, since: datetime) -> Iterator[Cost]:
    for made_at, tags in registry.made_since(use_case, since):
        if SECONDS in tags:
            day = made_at.astimezone(use_case.calendar.timezone).date()
            seconds, rows = float(tags[SECONDS]), int(tags[ROWS])
            yield Cost(use_case.name, MODEL, day, IN_PROCESS, 1, seconds, rows, 0)
