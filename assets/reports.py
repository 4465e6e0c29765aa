"""What Dagster shows of drift and performance reports, and whether their checks pass."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from ml_platform.errors import PlatformError
from ml_platform.monitoring import Performance, PerformanceRun, Skew, WindowDrift
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.assets.partition_events import CheckOutcome


def drift_metadata(drift: WindowDrift, link: str | None, snapshot: int) -> dict[str, Any]:
    """What the UI shows of a drift report; link: its page, if it has one."""
    nulls = {
        f"null share {c.column}": c.null_share
        for c in drift.columns
        if c.nulls_drifted and c.null_share is not None
    }
    return {
        **({"report": dg.MetadataValue.url(link)} if link else {}),
        **({} if drift.share is None else {"share drifted": drift.share}),
        **({} if drift.largest_score is None else {"largest score": drift.largest_score}),
        "columns drifted": len(drift.drifted),
        "columns judged": drift.judged,
        **({"segments failing": len(drift.failing_segments)} if drift.segments else {}),
        "champion": drift.version,
        "snapshot": snapshot,
        "scores": _score_table(drift),
        **{f"score {c.column}": c.score for c in drift.columns if c.score is not None},
        **nulls,
    }


def _score_table(drift: WindowDrift) -> dg.MetadataValue:
    ordered = sorted(drift.columns, key=lambda c: -1.0 if c.score is None else -c.score)
    lines = [
        f"| {f'**{c.column}**' if c.drifted else c.column} | {c.kind} | {c.method} "
        f"| {_figure(c.score)} | {_figure(c.evidently_score)} | {c.status} "
        f"| {_share(c.reference_null_share)} | {_share(c.null_share)} "
        f"| {f'**{_figure(c.null_score)}**' if c.nulls_drifted else _figure(c.null_score)} |"
        for c in ordered
    ]
    return dg.MetadataValue.md(
        "\n".join(
            [
                "| column | kind | method | score | Evidently's | status "
                "| null before | null now | difference |",
                "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
                *lines,
            ]
        )
    )


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def drift_verdict(drift: WindowDrift, link: str | None) -> CheckOutcome:
    """Whether too many columns drifted."""
    failing = drift.failing_segments
    if drift.share is None and not failing:
        return CheckOutcome(
            True, "too few rows to judge any column", severity=dg.AssetCheckSeverity.WARN
        )
    said = f"{len(drift.drifted)} of {drift.judged} columns drifted"
    named = f"{said}: {drift.named}" if drift.drifted else said
    return CheckOutcome(
        passed=not drift.failed and not failing,
        description="; ".join([named, *map(str, failing)]),
        metadata={
            **({} if drift.share is None else {"share drifted": drift.share}),
            **({"failing segments": ", ".join(s.name for s in failing)} if failing else {}),
            **({"report": dg.MetadataValue.url(link)} if link else {}),
        },
        severity=dg.AssetCheckSeverity.WARN,
    )


def performance_metadata(found: Performance, run: PerformanceRun) -> dict[str, Any]:
    """What the UI shows of a performance report."""
    return {
        "dagster/partition_row_count": found.rows,
        "labelled": found.labelled,
        "coverage": found.coverage,
        "status": found.status,
        "model versions": ", ".join(str(version) for version in found.versions),
        "snapshot": run.snapshot,
        **{name: float(value) for name, value in found.metrics.items()},
    }


def performance_verdict(use_case: UseCase, found: Performance) -> CheckOutcome:
    """Whether the metrics keep their bounds."""
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    said = [
        f"{metric} {found.metrics[metric]:.4f}{'' if kept else ' fails'} ({bounds[metric]})"
        for metric, kept in found.kept.items()
    ]
    return CheckOutcome(
        passed=bool(found.passed),
        description=f"{', '.join(said)} on {found.labelled} labelled rows",
        metadata={
            **{metric: found.metrics[metric] for metric in found.kept},
            "labelled": found.labelled,
        },
        severity=dg.AssetCheckSeverity.WARN,
    )


def bounds_of(use_case: UseCase) -> str:
    """The bounds of a use case, in words."""
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    said = ", ".join(f"`{metric}` {each}" for metric, each in bounds.items())
    return f"Within bounds: {said}." if said else "No bounds are set."


def reasons_of(use_case: UseCase, skipped: Mapping[Window, PlatformError]) -> dict[str, str]:
    """Why partitions have no report, by key."""
    return {use_case.calendar.key(window): str(error) for window, error in skipped.items()}


def agreement_verdict(skew: Skew) -> CheckOutcome:
    """Whether what was looked up online equals what the join yields."""
    said = f"{skew.compared} rows by key compared"
    differing = ", ".join(f"{name} in {count}" for name, count in skew.differing.items())
    return CheckOutcome(
        passed=not skew.differing,
        description=f"{said}; other values of {differing}" if differing else said,
        metadata={"compared": skew.compared, **dict(skew.differing)},
        severity=dg.AssetCheckSeverity.WARN,
    )
