"""Batch predictions, and their proof: scored again, to the bit."""

from ml_platform.scoring.batch import ScoreReport, predictions_table, score
from ml_platform.scoring.explain import Explanation, explain, explain_prediction
from ml_platform.scoring.reproduce import Reproduction, reproduce
from ml_platform.scoring.trace import PredictionTrace, SourceRows, trace

__all__ = [
    "Explanation",
    "PredictionTrace",
    "Reproduction",
    "ScoreReport",
    "SourceRows",
    "explain",
    "explain_prediction",
    "predictions_table",
    "reproduce",
    "score",
    "trace",
]
