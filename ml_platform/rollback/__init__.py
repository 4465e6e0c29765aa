"""Let an earlier version serve again, and make again exactly what the later ones had written."""

from ml_platform.rollback.affected import Affected, Step, affected_by
from ml_platform.rollback.plan import RollbackPlan, after_decision, plan_rollback, roll_back
from ml_platform.rollback.remake import Remade, remake

__all__ = [
    "Affected",
    "Remade",
    "RollbackPlan",
    "Step",
    "affected_by",
    "after_decision",
    "plan_rollback",
    "remake",
    "roll_back",
]
