"""Model versions, which of them serves when, and the one way to predict with them."""

from ml_platform.registry.approvals import answer, waiting
from ml_platform.registry.models import Registry
from ml_platform.registry.prediction import Fitted, predict
from ml_platform.registry.promotions import (
    Promotion,
    champion_at,
    champions_of,
    history,
    latest_decision,
    point_alias,
    promotions_table,
    record,
)
from ml_platform.registry.reigns import Reign, reigns
from ml_platform.registry.row_wise import is_row_wise
from ml_platform.registry.versions import ModelVersion, SeenColumn, TrainedModel

__all__ = [
    "Fitted",
    "ModelVersion",
    "Promotion",
    "Registry",
    "Reign",
    "SeenColumn",
    "TrainedModel",
    "answer",
    "champion_at",
    "champions_of",
    "history",
    "is_row_wise",
    "latest_decision",
    "point_alias",
    "predict",
    "promotions_table",
    "record",
    "reigns",
    "waiting",
]
