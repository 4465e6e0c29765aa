"""What other software may start, decide and end; whatever protocol brings it."""

from ml_platform.serving.control.control import Control, open_control
from ml_platform.serving.control.once import ControlOutcome, ControlRequest, control_request
from ml_platform.serving.control.pipelines import RunPipeline
from ml_platform.serving.control.requests import (
    BackfillParameters,
    Decide,
    Rollback,
    Score,
    Train,
    read,
)

__all__ = [
    "BackfillParameters",
    "Control",
    "ControlOutcome",
    "ControlRequest",
    "Decide",
    "Rollback",
    "RunPipeline",
    "Score",
    "Train",
    "control_request",
    "open_control",
    "read",
]
