"""Batch predictions, and their proof: scored again, to the bit."""

from ml_platform.scoring.batch import ScoreReport, predictions_table, score
from ml_platform.scoring.reproduce import Reproduction, reproduce
from ml_platform.scoring.trace import Trace, trace

__all__ = [
    "Reproduction",
    "ScoreReport",
    "Trace",
    "predictions_table",
    "reproduce",
    "score",
    "trace",
]
