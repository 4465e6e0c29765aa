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
from ml_platform.serving.control.once import COMMIT_BODY, COMMIT_KEY, REUSED, Once, Order, Outcome
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.requests import Decide, Rollback, window_in
from ml_platform.serving.control.rollbacks import ACTION, Ordered, Rollbacks
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

    def decide(self, order: Order, asked: Decide, *, approve: bool) -> Outcome:
        """Let a version that waits serve, or refuse it. Raises AnswerRefused."""
        case = order.use_case
        # Before anything is refused: whoever decided last may have died before the alias was set.
        repair(self.lake, self.registry, case)

        def do() -> Outcome:
            number = self._decided(order)
            if number is None:
                what, changed = "approve" if approve else "reject", f"version {asked.version}"
                row = self.recorder.along(order, what, changed, reason=asked.reason)
                given = answer(
                    self.lake, self.registry, case, asked.version, approve=approve,
                    decided_by=order.by, reason=asked.reason, commit=_commit(order, row),
                )  # fmt: skip
            else:
                given = self._made_before(case, number)
            return Outcome({"run": None, "decided": _told(case, given)})

        return self.once(order, do)

    def rollback(self, order: Order, asked: Rollback) -> Outcome:
        """Let an earlier version serve again; which partitions are then made again.

        Exactly those that later versions wrote. The sensor that follows rollbacks has them made,
        as after one that was ordered elsewhere, and that is what is under way. Raises
        RollbackRefused, ModelNotFound and ParameterRefused.
        """
        case = order.use_case
        repair(self.lake, self.registry, case)
        if asked.dry_run:
            plan = self._plan(order, asked)
            return Outcome(
                {"dry_run": True, "would": _told(case, plan.promotion), **_set(case, plan)}
            )

        def do() -> Outcome:
            if (number := self._decided(order)) is not None:
                return self._under_way(Ordered(case, number, self._made_before(case, number)), None)
            plan = self._plan(order, asked)
            # It is appended only if nothing else has been decided since the plan.
            ordered, shown = Ordered(case, plan.decisions + 1, plan.promotion), _set(case, plan)
            row = self.recorder.along(
                order, ACTION, f"version {plan.promotion.version}", run=ordered.id,
                reason=asked.reason, partitions=str(shown["partitions"]),
            )  # fmt: skip
            made = roll_back(self.lake, self.registry, case, plan, _commit(order, row))
            return self._under_way(replace(ordered, promotion=made), shown)

        return self.once(order, do)

    def _under_way(self, ordered: Ordered, shown: Mapping[str, Any] | None) -> Outcome:
        """A rollback; shown: what is made again, None where it was ordered before."""
        total = None if shown is None else shown["partitions"]
        decided = {"decided": _told(ordered.use_case, ordered.promotion), **(shown or {})}
        if total == 0:
            return Outcome({"run": None, **decided})
        return Outcome({**self.rollbacks.begun(ordered, total), **decided}, ordered.id)

    def _plan(self, order: Order, asked: Rollback) -> RollbackPlan:
        case = order.use_case
        since = None if asked.first is None else window_in(case, "from", asked.first).start
        return plan_rollback(
            self.lake, self.registry, case, decided_by=order.by, reason=asked.reason,
            to=asked.version, since=since, serving=asked.serving,
        )  # fmt: skip

    def _decided(self, order: Order) -> int | None:
        """Number of what was decided under the key before, by a worker that did not say so."""
        if order.key is None:
            return None
        number = decided_with(self.lake, order.use_case, COMMIT_KEY, order.key)
        if number is not None:
            with self.lake.cursor() as cursor:
                if self.lake.snapshot_saying(cursor, COMMIT_BODY, order.body) is None:
                    raise KeyReused(REUSED)
        return number

    def _made_before(self, case: UseCase, number: int) -> Promotion:
        return history(self.lake, case)[number - 1]


def _commit(order: Order, row: Along) -> Commit:
    case, table = order.use_case, f"{order.use_case.name}/promotions"
    return Commit(order.run_id, case.code_version, table, extra=order.extra, also=row)


def _told(case: UseCase, promotion: Promotion) -> dict[str, Any]:
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
    """Every partition that is made again."""
    return {
        "replaced": list(plan.replaced),
        "ends_canary": plan.ends_canary,
        "partitions": sum(len(windows) for _, windows in plan.affected.tables),
        "made_again": {
            name: window_ranges(case, windows) for name, windows in plan.affected.tables
        },
    }
