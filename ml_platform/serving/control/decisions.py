"""What is decided at once, in the lake, whether Dagster is there or not."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ml_platform.access import Along
from ml_platform.errors import KeyReused
from ml_platform.registry import (
    Promotion,
    Registry,
    answer,
    decided_with,
    history,
    repair,
)
from ml_platform.rollback import RollbackPlan, plan_rollback, roll_back
from ml_platform.serving.control.launches import window_ranges
from ml_platform.serving.control.once import (
    COMMIT_BODY,
    COMMIT_KEY,
    REUSED,
    ControlOutcome,
    ControlRequest,
    Once,
)
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.requests import Decide, Rollback, window_in
from ml_platform.serving.control.rollbacks import ACTION, RequestedRollback, Rollbacks
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake


@dataclass(frozen=True)
class Decisions:
    """Answers about versions that wait, and rollbacks, each once under one key.

    All raise KeyReused, and what the registry and the lake raise.
    """

    lake: Lake
    registry: Registry
    rollbacks: Rollbacks
    once: Once
    recorder: Recorder

    def decide(self, request: ControlRequest, asked: Decide, *, approve: bool) -> ControlOutcome:
        """Let a version that waits serve, or refuse it. Raises AnswerRefused."""
        case = request.use_case
        # Before anything is refused: whoever decided last may have died before the alias was set.
        repair(self.lake, self.registry, case)

        def do() -> ControlOutcome:
            number = self._decided(request)
            if number is None:
                what, changed = "approve" if approve else "reject", f"version {asked.version}"
                row = self.recorder.along(request, what, changed, reason=asked.reason)
                given = answer(
                    self.lake, self.registry, case, asked.version, approve=approve,
                    decided_by=request.by, reason=asked.reason, commit=_commit(request, row),
                )  # fmt: skip
            else:
                given = self._made_before(case, number)
            return ControlOutcome({"run": None, "decided": _described(case, given)})

        return self.once(request, do)

    def rollback(self, request: ControlRequest, asked: Rollback) -> ControlOutcome:
        """Let an earlier version serve again; which partitions are then recomputed.

        Exactly those that later versions wrote. The sensor that follows rollbacks has them made,
        as after one that was requested elsewhere, and that is what is under way. Raises
        RollbackRefused, ModelNotFound and ParameterRefused.
        """
        case = request.use_case
        repair(self.lake, self.registry, case)
        if asked.dry_run:
            plan = self._plan(request, asked)
            return ControlOutcome(
                {"dry_run": True, "would": _described(case, plan.promotion), **_set(case, plan)}
            )

        def do() -> ControlOutcome:
            if (number := self._decided(request)) is not None:
                return self._under_way(
                    RequestedRollback(case, number, self._made_before(case, number)), None
                )
            plan = self._plan(request, asked)
            # It is appended only if nothing else has been decided since the plan.
            rollback, shown = (
                RequestedRollback(case, plan.decisions + 1, plan.promotion),
                _set(case, plan),
            )
            row = self.recorder.along(
                request, ACTION, f"version {plan.promotion.version}", run=rollback.id,
                reason=asked.reason, partitions=str(shown["partitions"]),
            )  # fmt: skip
            made = roll_back(self.lake, self.registry, case, plan, _commit(request, row))
            return self._under_way(replace(rollback, promotion=made), shown)

        return self.once(request, do)

    def _under_way(
        self, rollback: RequestedRollback, shown: Mapping[str, Any] | None
    ) -> ControlOutcome:
        """A rollback; shown: what is recomputed, None where it was requested before."""
        total = None if shown is None else shown["partitions"]
        decided = {"decided": _described(rollback.use_case, rollback.promotion), **(shown or {})}
        if total == 0:
            return ControlOutcome({"run": None, **decided})
        return ControlOutcome({**self.rollbacks.begun(rollback, total), **decided}, rollback.id)

    def _plan(self, request: ControlRequest, asked: Rollback) -> RollbackPlan:
        case = request.use_case
        since = None if asked.first is None else window_in(case, "from", asked.first).start
        return plan_rollback(
            self.lake, self.registry, case, decided_by=request.by, reason=asked.reason,
            to=asked.version, since=since, serving=asked.serving,
        )  # fmt: skip

    def _decided(self, request: ControlRequest) -> int | None:
        """Number of what was decided under the key before, by a worker that did not say so."""
        if request.key is None:
            return None
        number = decided_with(self.lake, request.use_case, COMMIT_KEY, request.key)
        if number is not None:
            with self.lake.cursor() as cursor:
                if self.lake.snapshot_saying(cursor, COMMIT_BODY, request.body) is None:
                    raise KeyReused(REUSED)
        return number

    def _made_before(self, case: UseCase, number: int) -> Promotion:
        return history(self.lake, case)[number - 1]


def _commit(request: ControlRequest, row: Along) -> Commit:
    case, table = request.use_case, f"{request.use_case.name}/promotions"
    return Commit(request.run_id, case.code_version, table, extra=request.extra, also=row)


def _described(case: UseCase, promotion: Promotion) -> dict[str, Any]:
    since = case.calendar.key(case.calendar.window_at(promotion.effective_from))
    return {
        "version": promotion.version,
        "decision": promotion.decision,
        "from": since,
        "by": promotion.decided_by,
        "reason": promotion.reason,
        "at": promotion.decided_at.isoformat(),
    }


def _set(case: UseCase, plan: RollbackPlan) -> Mapping[str, Any]:
    """Every partition that is recomputed."""
    return {
        "replaced": list(plan.replaced),
        "ends_canary": plan.ends_canary,
        "partitions": sum(len(windows) for _, windows in plan.affected.tables),
        "recomputed": {
            name: window_ranges(case, windows) for name, windows in plan.affected.tables
        },
    }
