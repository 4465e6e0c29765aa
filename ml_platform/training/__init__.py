"""Train model versions, and decide which of them serve."""

from ml_platform.training.estimator import build_estimator
from ml_platform.training.gate import decide
from ml_platform.training.train import TrainingReport, train

__all__ = ["TrainingReport", "build_estimator", "decide", "train"]
