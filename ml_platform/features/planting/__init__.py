"""Leaks and late corrections, planted in a copy of a use case: what does the platform make of them?

Nothing here changes the lake that is copied.
"""

from ml_platform.features.planting.outcomes import (
    CHANGES_NOTHING,
    CLEAN,
    FALSE_ALARM,
    FOUND,
    MISSED,
    MOVED,
    LateCorrections,
    Plant,
)
from ml_platform.features.planting.planting import plant

__all__ = [
    "CHANGES_NOTHING",
    "CLEAN",
    "FALSE_ALARM",
    "FOUND",
    "MISSED",
    "MOVED",
    "LateCorrections",
    "Plant",
    "plant",
]
