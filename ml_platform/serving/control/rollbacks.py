"""Rollbacks as something under way: the partitions that are recomputed after the decision."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from ml_platform.access import Audit
from ml_platform.orchestrator import Orchestrator, Run, RunStatus
from ml_platform.registry import Promotion, history
from ml_platform.rollback import affected_by
from ml_platform.serving.control.documents import Look, Visible, document, unknown
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

NAME = re.compile(r"rollback-(.{1,100})-([1-9][0-9]{0,8})")
ACTION = "roll back"
"""What the audit calls it."""
RECOMPUTED = {"ml_platform/cause": "rollback"}
"""Tag of the runs that the sensor launches after a rollback."""
FAILURES_SHOWN = 5


@dataclass(frozen=True)
class RequestedRollback:
    """A rollback in the promotion history."""

    use_case: UseCase
    number: int
    """Which decision it is; the first is 1."""
    promotion: Promotion

    @property
    def id(self) -> str:
        """What it is called here."""
        return f"rollback-{self.use_case.name}-{self.number}"


@dataclass(frozen=True)
class Rollbacks:
    """Looks at rollbacks, whoever requested them."""

    lake: Lake
    dagster: Orchestrator
    use_cases: Mapping[str, UseCase]

    def find(self, run_id: str, visible: Visible) -> RequestedRollback:
        """The rollback of an id; RunUnknown where there is none."""
        found = NAME.fullmatch(run_id)
        if found is None or found[1] not in self.use_cases or not visible(found[1]):
            raise unknown(run_id)
        case, number = self.use_cases[found[1]], int(found[2])
        decisions = history(self.lake, case)
        if number > len(decisions) or decisions[number - 1].decision != "rolled back":
            raise unknown(run_id)
        return RequestedRollback(case, number, decisions[number - 1])

    def look(self, rollback: RequestedRollback) -> Look:
        """How much is left: the lake says so, and Dagster what becomes of it."""
        case, promotion = rollback.use_case, rollback.promotion
        decisions = history(self.lake, case)
        affected = affected_by(self.lake, case, decisions, promotion.effective_from)
        left = sum(len(windows) for _, windows in affected.tables)
        runs = self.runs(rollback) if left else []
        total = self._total(rollback)
        failed = [run.id for run in runs if run.status is RunStatus.failure][:FAILURES_SHOWN]
        more = {
            "partitions": {"done": None if total is None else max(total - left, 0), "of": total},
            "left": {name: len(windows) for name, windows in affected.tables if windows},
            **_described(promotion),
            "failures": [cause for run in failed for cause in self.dagster.failures(run)],
        }
        link = self.dagster.link(runs[0].id) if runs else f"{self.dagster.url}/runs"
        return document(rollback.id, case.name, _status(left, runs), more, link)

    def begun(self, rollback: RequestedRollback, total: int | None) -> Look:
        """One that has just been requested; Dagster is not asked.

        total: partitions to recompute, None where that is not known.
        """
        more = {
            "partitions": {"done": None if total is None else 0, "of": total},
            **_described(rollback.promotion),
            "failures": [],
        }
        link = f"{self.dagster.url}/runs"
        return document(rollback.id, rollback.use_case.name, "queued", more, link)

    def runs(self, rollback: RequestedRollback) -> list[Run]:
        """Runs that have made partitions of the use case again since, newest first."""
        since = rollback.promotion.decided_at.astimezone(UTC)
        return [
            run
            for run in self.dagster.runs(RECOMPUTED)
            if run.created_at >= since
            and any(table.startswith(f"{rollback.use_case.name}/") for table in run.tables)
        ]

    def _total(self, rollback: RequestedRollback) -> int | None:
        for row in Audit(self.lake).rows(what=ACTION, use_case=rollback.use_case.name):
            if row.action.details.get("run") == rollback.id:
                total = row.action.details.get("partitions")
                return None if total is None else int(total)
        # Requested elsewhere: at the command line, say.
        return None


def _described(promotion: Promotion) -> dict[str, Any]:
    return {
        "by": promotion.decided_by,
        "reason": promotion.reason,
        "created_at": promotion.decided_at.isoformat(),
    }


def _status(left: int, runs: Sequence[Run]) -> str:
    if not left:
        return "succeeded"
    if any(not run.status.is_over for run in runs):
        return "running"
    latest: dict[Any, RunStatus] = {}
    for run in runs:
        latest.setdefault((run.tables, run.partitions), run.status)
    if RunStatus.failure in latest.values():
        return "failed"
    # Reports are recomputed once predictions are; until then nothing runs.
    return "ended" if RunStatus.canceled in latest.values() else "queued"
