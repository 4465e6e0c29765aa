"""What Dagster shows of drift and performance reports, and whether their checks pass."""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg

from ml_platform.errors import PlatformError
from ml_platform.monitoring import (
    PerformanceReport,
    PerformanceRun,
    Skew,
    Trend,
    WindowDrift,
    describe_trend,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform_dagster.assets.metadata import rounded
from ml_platform_dagster.assets.partition_events import CheckOutcome

INLINE_CHARACTERS = 1000
"""Dagster shows Markdown in its place below this length; longer texts are a click away."""
NAMED_COLUMNS = 3
"""Drifted columns that a message names."""


def with_trend(metadata: Mapping[str, Any], trend: Trend | None) -> dict[str, Any]:
    """Metadata of the newest report of a run, with a picture of those up to the newest there is.

    It stands after the status. The Plots of Dagster show the newest 120 partitions at most.
    """
    text = describe_trend(trend, INLINE_CHARACTERS) if trend else ""
    shown = {"trend": dg.MetadataValue.md(text)} if text else {}
    return {"status": metadata["status"], **shown, **metadata}


def drift_metadata(drift: WindowDrift, link: str | None, snapshot: int) -> dict[str, Any]:
    """What the UI shows of a drift report, what matters first; link: its page, if it has one."""
    by_distance = sorted(drift.columns, key=lambda column: -column.times_limit)
    nulls = {
        f"null share {c.column}": rounded(c.null_share)
        for c in by_distance
        if c.nulls_drifted and c.null_share is not None
    }
    largest = drift.largest_score
    return {
        "status": _drift_status(drift),
        **({"worst columns": _worst_table(drift)} if drift.drifted else {}),
        **({"report": dg.MetadataValue.url(link)} if link else {}),
        **({} if drift.share is None else {"share drifted": rounded(drift.share)}),
        "columns drifted": len(drift.drifted),
        "columns judged": drift.judged,
        **({"segments failing": len(drift.failing_segments)} if drift.segments else {}),
        **({} if largest is None else {"largest score": rounded(largest)}),
        "scores": _score_table(drift),
        "champion": drift.version,
        "snapshot": snapshot,
        **{f"score {c.column}": rounded(c.score) for c in by_distance if c.score is not None},
        **nulls,
    }


def _drift_status(drift: WindowDrift) -> str:
    if drift.failed:
        return "drifted"
    if drift.failing_segments:
        return "segments fail"
    return "too few rows" if drift.share is None else "within limits"


def _worst_table(drift: WindowDrift) -> dg.MetadataValue:
    lines = [
        f"| {c.column} | {_figure(c.score)} | {c.threshold:g} "
        f"| {_share(c.reference_null_share)} → {_share(c.null_share)} |"
        for c in drift.worst[:NAMED_COLUMNS]
    ]
    heading = ["| column | score | limit | nulls before → now |", "| --- | --- | --- | --- |"]
    return dg.MetadataValue.md("\n".join([*heading, *lines]))


def _score_table(drift: WindowDrift) -> dg.MetadataValue:
    ordered = sorted(drift.columns, key=lambda column: -column.times_limit)
    lines = [
        f"| {f'**{c.column}**' if c.drifted else c.column} | {c.kind} | {c.method} "
        f"| {_figure(c.score)} | {c.threshold:g} | {_figure(c.evidently_score)} | {c.status} "
        f"| {_share(c.reference_null_share)} | {_share(c.null_share)} "
        f"| {f'**{_figure(c.null_score)}**' if c.nulls_drifted else _figure(c.null_score)} |"
        for c in ordered
    ]
    return dg.MetadataValue.md(
        "\n".join(
            [
                "| column | kind | method | score | limit | Evidently's | status "
                "| null before | null now | difference |",
                "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
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
    return CheckOutcome(
        passed=not drift.failed and not failing,
        description="; ".join(
            [*_drift_in_words(drift), *map(str, failing), *([f"see {link}"] if link else [])]
        ),
        metadata={
            **({} if drift.share is None else {"share drifted": rounded(drift.share)}),
            **({"failing segments": ", ".join(s.name for s in failing)} if failing else {}),
            **({"report": dg.MetadataValue.url(link)} if link else {}),
        },
        severity=dg.AssetCheckSeverity.WARN,
    )


def _drift_in_words(drift: WindowDrift) -> Iterator[str]:
    if drift.share is None:
        return
    said = (
        f"{len(drift.drifted)} of {drift.judged} columns drifted "
        f"({drift.share:.0%}, limit {drift.limit:.0%})"
    )
    worst = drift.worst
    named = ", ".join(str(column) for column in worst[:NAMED_COLUMNS])
    more = len(worst) - NAMED_COLUMNS
    yield f"{said}: {named}{f' and {more} more' if more > 0 else ''}" if worst else said


def performance_metadata(
    use_case: UseCase, found: PerformanceReport, run: PerformanceRun
) -> dict[str, Any]:
    """What the UI shows of a performance report: the model's metric and those with bounds first."""
    first = [use_case.model.metric, *found.kept]
    names = [name for name in dict.fromkeys([*first, *found.metrics]) if name in found.metrics]
    return {
        "status": _performance_status(use_case, found),
        **{name: rounded(found.metrics[name]) for name in names},
        "labelled": found.labelled,
        "coverage": rounded(found.coverage),
        "model versions": ", ".join(str(version) for version in found.versions),
        "dagster/partition_row_count": found.rows,
        "snapshot": run.snapshot,
    }


def _performance_status(use_case: UseCase, found: PerformanceReport) -> str:
    if found.passed is None:
        return "measured, no bounds" if found.metrics else found.status
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    broken = [
        f"{name} {found.metrics[name]:.4f} ({bounds[name]})"
        for name, kept in found.kept.items()
        if not kept
    ]
    return f"out of bounds: {', '.join(broken)}" if broken else "within bounds"


def performance_verdict(use_case: UseCase, found: PerformanceReport) -> CheckOutcome:
    """Whether the metrics keep their bounds."""
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    said = [
        f"{metric} {found.metrics[metric]:.4f} {'is' if kept else 'is not'} {bounds[metric]}"
        for metric, kept in found.kept.items()
    ]
    return CheckOutcome(
        passed=bool(found.passed),
        description=f"{', '.join(said)} on {found.labelled} labelled rows",
        metadata={
            **{metric: rounded(found.metrics[metric]) for metric in found.kept},
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
