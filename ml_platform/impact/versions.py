"""What model versions touched: partitions they wrote, decisions they were part of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.errors import ModelNotFound, TableNotFound
from ml_platform.features import since_sql
from ml_platform.registry import (
    Promotion,
    Registry,
    Rollout,
    TrainedVersion,
    history,
    rollouts,
    served_ranges,
)
from ml_platform.spec.tables import BY_CHAMPION
from ml_platform.spec.use_case import LIVE_REPORTS, REQUESTS, UseCase, published_table
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

Rows = Mapping[Window, int]
"""Rows by partition, in order of time."""


@dataclass(frozen=True)
class VersionImpact:
    """Everything that one model version touched."""

    version: TrainedVersion
    served: tuple[tuple[datetime, datetime | None], ...]
    """Ranges of event time; without an end it serves now."""
    decisions: tuple[Promotion, ...]
    """About it: the gate's, approvals, rollbacks to it."""
    compared: tuple[Promotion, ...]
    """About challengers that were compared with it as champion."""
    rolled_back: tuple[Promotion, ...]
    """Rollbacks to another version that ended a range in which it served."""
    tried: tuple[Rollout, ...]
    """As a canary or shadow."""
    tables: Mapping[str, Rows]
    """Rows that it wrote, or that are about it, by table."""


def version_impact(
    lake: Lake, registry: Registry, use_case: UseCase, version: int
) -> VersionImpact:
    """What a model version touched; ModelNotFound where there is none of that number."""
    found = [each for each in registry.trained(use_case) if each.version == version]
    if not found:
        registry.tags(use_case, version)
        raise ModelNotFound(f"{use_case.name} has no model version {version}")
    trained = found[0]
    decisions = history(lake, use_case)
    with lake.cursor() as cursor:
        tables = written_by(cursor, lake, use_case, [version], trained.cutoff)
    return VersionImpact(
        trained,
        tuple(
            (period.since, until)
            for period, until in served_ranges(decisions)
            if period.version == version
        ),
        tuple(each for each in decisions if each.version == version),
        compared_with(decisions, [version]),
        tuple(_ended_by_rollback(decisions, version)),
        tuple(each for each in rollouts(lake, use_case, decisions) if each.version == version),
        tables,
    )


def written_by(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    versions: Collection[int],
    since: datetime,
) -> dict[str, Rows]:
    """Rows of tables that some versions made, or that report on them, by partition.

    since: the earliest cutoff of them, before which none is champion.
    """
    columns: dict[str, str] = {
        "predictions": "model_version",
        **dict.fromkeys(map(published_table, use_case.publish), "model_versions"),
        "drift_report": BY_CHAMPION["drift_report"],
        "performance_report": "model_versions",
    }
    if REQUESTS in use_case.sources:
        drift, performance = LIVE_REPORTS
        columns |= {REQUESTS: "model_version", drift: BY_CHAMPION[drift]}
        columns |= {performance: "model_versions"}
    found = {}
    for table, column in columns.items():
        # Requests, and what an endpoint is asked, may be of any time.
        is_champions = table != REQUESTS and table not in LIVE_REPORTS
        is_champions = is_champions and not use_case.scored_by_any_version
        near = since_sql(use_case, since) if is_champions else "true"
        rows = _rows(cursor, lake, use_case, table, column, versions, near)
        if rows:
            found[table] = rows
    return found


def trained_with(
    versions: Sequence[TrainedVersion],
    use_case: UseCase,
    ranges: Sequence[tuple[Window, int]],
    known_from: datetime | None,
) -> tuple[TrainedVersion, ...]:
    """Versions whose training set may have held something that is read of some ranges.

    ranges: of event time of examples, each with the snapshot since which they may have read it.
    known_from: when the rows came to be known, None where that says nothing.
    """
    start = use_case.calendar.start
    return tuple(
        each
        for each in versions
        if (known_from is None or utc(known_from) < utc(each.cutoff))
        and any(
            each.snapshot >= since
            and utc(examples.start) < utc(each.cutoff)
            and utc(examples.end) > utc(each.trained_from or start)
            for examples, since in ranges
        )
    )


def compared_with(
    decisions: Sequence[Promotion], versions: Collection[int]
) -> tuple[Promotion, ...]:
    """Decisions about challengers that were compared with one of some champions."""
    return tuple(
        each
        for each in decisions
        if each.figures.get("champion_version") in versions and each.version not in versions
    )


def _ended_by_rollback(decisions: Sequence[Promotion], version: int) -> list[Promotion]:
    """Rollbacks to another version that are later than a decision by which this one served."""
    own = [each for each in decisions if each.version == version and each.serves]
    return [
        each
        for each in decisions
        if each.decision == "rolled back" and each.version != version
        if any(
            each.decided_at > mine.decided_at and each.effective_from <= mine.effective_from
            for mine in own
        )
    ]


def _rows(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    table: str,
    column: str,
    versions: Collection[int],
    near: str,
) -> Rows:
    """near: predicate on `window_start`."""
    try:
        relation = lake.relation(cursor, use_case.name, table)
    except TableNotFound:
        return {}
    listed = ", ".join(f"{version:d}" for version in sorted(versions))
    is_list = column == "model_versions"
    ours = f"list_has_any({column}, [{listed}])" if is_list else f"{column} IN ({listed})"
    found = cursor.execute(
        f"""SELECT {WINDOW_START}, count(*) FROM {relation}
        WHERE {ours} AND {near} GROUP BY 1 ORDER BY 1"""
    ).fetchall()
    calendar = use_case.calendar
    return {calendar.window_stored(start): count for start, count in found}
