"""What other software may start, decide and end; whatever protocol brings it."""

from ml_platform.serving.control.control import Control, open_control
from ml_platform.serving.control.once import Order, Outcome, order_of
from ml_platform.serving.control.pipelines import RunPipeline
from ml_platform.serving.control.requests import Backfill, Decide, Rollback, Score, Train, read

__all__ = [
    "Backfill",
    "Control",
    "Decide",
    "Order",
    "Outcome",
    "Rollback",
    "RunPipeline",
    "Score",
    "Train",
    "open_control",
    "order_of",
    "read",
]
