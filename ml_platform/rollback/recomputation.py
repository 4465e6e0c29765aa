"""Recompute partitions in this process, in the order in which they depend on each other."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_platform.monitoring import DriftRun, PerformanceRun, report_drift, report_performance
from ml_platform.publish import PublishReport, publish_range
from ml_platform.registry import Registry
from ml_platform.rollback.affected import Affected, RollbackStep
from ml_platform.scoring import ScoreReport, score
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform.storage import Commit, Lake


@dataclass(frozen=True)
class RecomputationReport:
    """What came of each table, range by range."""

    predictions: tuple[ScoreReport, ...] = ()
    drift_report: tuple[DriftRun, ...] = ()
    performance_report: tuple[PerformanceRun, ...] = ()
    published: tuple[PublishReport, ...] = ()


@dataclass
class _Results:
    predictions: list[ScoreReport] = field(default_factory=list)
    drift_report: list[DriftRun] = field(default_factory=list)
    performance_report: list[PerformanceRun] = field(default_factory=list)
    published: list[PublishReport] = field(default_factory=list)


def recompute(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    affected: Affected,
    commits: Mapping[str, Commit],
    *,
    progress: Callable[[RollbackStep], None] = lambda step: None,
) -> RecomputationReport:
    """Recompute exactly the affected partitions; `progress` is called with each range when done.

    commits: by table. Raises whatever scoring or reporting raises; what was done until then stays,
    and `affected_by` then finds the rest.
    """
    results = _Results()
    published = {published_table(name): name for name in use_case.publish}
    for step in (step for phase in affected.steps(use_case) for step in phase):
        for table in step.tables:
            commit = commits[table]
            if table == "predictions":
                results.predictions.append(score(lake, registry, use_case, step.range, commit))
            elif table in published:
                results.published.append(
                    publish_range(lake, use_case, published[table], step.range, commit)
                )
            elif table == "drift_report":
                results.drift_report.append(
                    report_drift(lake, registry, use_case, step.range, commit)
                )
            else:
                now = datetime.now(UTC)
                results.performance_report.append(
                    report_performance(lake, use_case, step.range, commit, now=now)
                )
        progress(step)
    return RecomputationReport(
        tuple(results.predictions), tuple(results.drift_report),
        tuple(results.performance_report), tuple(results.published),
    )  # fmt: skip
