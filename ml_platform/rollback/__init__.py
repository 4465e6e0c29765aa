"""Let an earlier version serve again, and recompute exactly what the later ones had written."""

from ml_platform.rollback.affected import Affected, RollbackStep, affected_by
from ml_platform.rollback.plan import RollbackPlan, after_decision, plan_rollback, roll_back
from ml_platform.rollback.recomputation import RecomputationReport, recompute

__all__ = [
    "Affected",
    "RecomputationReport",
    "RollbackPlan",
    "RollbackStep",
    "affected_by",
    "after_decision",
    "plan_rollback",
    "recompute",
    "roll_back",
]
