"""Bring partitions up to date: which are missing, failed or stale, and computing them."""

from ml_platform.backfill.computing import NOTHING_TO_COMPUTE, computing
from ml_platform.backfill.plan import Chunk
from ml_platform.backfill.recalendar import Recalendared, recalendar
from ml_platform.backfill.staleness import PartitionState, Standing, States, counts, due, judge

__all__ = [
    "NOTHING_TO_COMPUTE",
    "Chunk",
    "PartitionState",
    "Recalendared",
    "Standing",
    "States",
    "computing",
    "counts",
    "due",
    "judge",
    "recalendar",
]
