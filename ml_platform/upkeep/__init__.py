"""What keeps a lake usable for years: upkeep, backups, repair of what was lost, moving."""

from ml_platform.upkeep.lake_upkeep import (
    LakeUpkeep,
    keep_up,
    plan_upkeep,
    retention_of,
    upkeep_document,
)

__all__ = ["LakeUpkeep", "keep_up", "plan_upkeep", "retention_of", "upkeep_document"]
