"""Bring partitions up to date: which are missing, failed or stale, and computing them."""

from ml_platform.backfill.computing import NOTHING_TO_COMPUTE, computing
from ml_platform.backfill.plan import Chunk
from ml_platform.backfill.recalendar import Recalendared, recalendar
from ml_platform.backfill.staleness import Standing, State, States, counts, due, judge

__all__ = [
    "NOTHING_TO_COMPUTE",
    "Chunk",
    "Recalendared",
    "Standing",
    "State",
    "States",
    "computing",
    "counts",
    "due",
    "judge",
    "recalendar",
]
