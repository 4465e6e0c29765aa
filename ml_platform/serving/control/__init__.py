"""What other software may start, decide and end; whatever protocol brings it."""

from ml_platform.serving.control.control import Control, open_control
from ml_platform.serving.control.once import ControlRequest, Outcome, control_request
from ml_platform.serving.control.pipelines import RunPipeline
from ml_platform.serving.control.requests import Backfill, Decide, Rollback, Score, Train, read

__all__ = [
    "Backfill",
    "Control",
    "ControlRequest",
    "Decide",
    "Outcome",
    "Rollback",
    "RunPipeline",
    "Score",
    "Train",
    "control_request",
    "open_control",
    "read",
]
