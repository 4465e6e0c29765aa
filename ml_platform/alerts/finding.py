"""Everything there is to report about a use case, derived from the state of the lake."""

from collections.abc import Sequence
from datetime import datetime

from ml_platform.alerts.condition import Findings
from ml_platform.alerts.decided import find_decided
from ml_platform.alerts.failures import FailedRun, find_failures
from ml_platform.alerts.freshness import Freshness, read_freshness
from ml_platform.alerts.reported import find_drift, find_performance, find_segments
from ml_platform.alerts.serving import find_serving
from ml_platform.alerts.tables import find_late, find_quarantine
from ml_platform.registry import history
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake


def find_conditions(
    lake: Lake,
    use_case: UseCase,
    now: datetime,
    failed_runs: Sequence[FailedRun] = (),
    tables: Sequence[Freshness] | None = None,
) -> Findings:
    """Conditions that hold now and events that have happened, reported or not.

    tables: how far they have come, where that has been read already.
    """
    if tables is None:
        tables = read_freshness(lake, use_case, now)
    decisions = history(lake, use_case)
    training = next((run.what for run in failed_runs if run.trains), "")
    parts = (
        find_drift(lake, use_case, decisions, training),
        find_performance(lake, use_case, decisions, training),
        find_segments(lake, use_case),
        find_quarantine(lake, use_case),
        find_late(lake, use_case, tables),
        find_decided(lake.settings, use_case, decisions),
        find_serving(lake, use_case, decisions, now),
        find_failures(lake.settings, use_case, failed_runs),
    )
    notes: dict[str, str] = {}
    judged: dict[str, datetime] = {}
    for part in parts:
        notes |= part.notes
        judged |= part.judged
    return Findings(tuple(c for part in parts for c in part.conditions), notes, judged)
