"""Let an earlier version serve again, and recompute exactly what the later ones had written."""

from ml_platform.rollback.affected import Affected, Step, affected_by
from ml_platform.rollback.plan import RollbackPlan, after_decision, plan_rollback, roll_back
from ml_platform.rollback.recomputation import Recomputed, recompute

__all__ = [
    "Affected",
    "Recomputed",
    "RollbackPlan",
    "Step",
    "affected_by",
    "after_decision",
    "plan_rollback",
    "recompute",
    "roll_back",
]
