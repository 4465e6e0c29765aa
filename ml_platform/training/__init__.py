"""Train model versions, and decide which of them serve."""

from ml_platform.training.estimator import build_estimator
from ml_platform.training.gate import Decided, decide
from ml_platform.training.train import TrainingReport, train
from ml_platform.training.verdict import GateVerdict, Segment, judge, judged_range
from ml_platform.training.verdict_picture import describe_improvement

__all__ = [
    "Decided",
    "GateVerdict",
    "Segment",
    "TrainingReport",
    "build_estimator",
    "decide",
    "describe_improvement",
    "judge",
    "judged_range",
    "train",
]
