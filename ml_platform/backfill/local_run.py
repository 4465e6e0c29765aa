"""Computing tables in this process, without Dagster."""

from contextlib import suppress
from datetime import UTC, datetime

from ml_platform.backfill.computing import computing
from ml_platform.engines import compute_features
from ml_platform.errors import EmptyPartition, LabelsNotArrived
from ml_platform.features import check_and_note, compute_labels
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.publish import publish_range
from ml_platform.registry import Registry
from ml_platform.scoring import score
from ml_platform.sources import ingest
from ml_platform.spec.use_case import Engine, UseCase, feature_table, published_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Written


def compute(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    table: str,
    window_range: Window,
    run_id: str,
    engine: Engine | None = None,
) -> None:
    """Compute one table for a range, in one transaction.

    engine: of features and predictions, by default the one that the use case declares.
    Windows for which there is nothing to compute are left out, and noted as computed.
    """
    with (
        # A single window without rows is an error to those who ask for it alone.
        suppress(EmptyPartition, LabelsNotArrived),
        computing(lake, use_case, table, window_range, run_id) as commit,
    ):
        _compute(lake, registry, use_case, table, window_range, commit, engine)


def _compute(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    table: str,
    window_range: Window,
    commit: Commit,
    engine: Engine | None,
) -> None:
    views = {feature_table(view): view for view in use_case.features}
    published = {published_table(name): name for name in use_case.publish}
    if table in use_case.sources:
        ingest(lake, use_case, table, window_range, commit)
    elif table in views:
        written = compute_features(
            lake, use_case, views[table], window_range, commit, engine=engine
        )
        _check(lake, use_case, views[table], written, commit)
    elif table == "labels":
        written = compute_labels(lake, use_case, window_range, commit)
        _check(lake, use_case, None, written, commit)
    elif table == "predictions":
        score(lake, registry, use_case, window_range, commit, engine=engine)
    elif table in published:
        publish_range(lake, use_case, published[table], window_range, commit)
    elif table == "drift_report":
        report_drift(lake, registry, use_case, window_range, commit)
    elif table == "live_drift_report":
        report_drift(lake, registry, use_case, window_range, commit, live=True)
    else:
        now, live = datetime.now(UTC), table == "live_performance_report"
        report_performance(lake, use_case, window_range, commit, now=now, live=live)


def _check(
    lake: Lake, use_case: UseCase, view: str | None, written: Written, commit: Commit
) -> None:
    for report in check_and_note(lake, use_case, view, written, commit):
        report.raise_if_found()
