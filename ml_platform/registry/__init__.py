"""Model versions, which of them serves when, and the one way to predict with them."""

from ml_platform.registry.models import Registry
from ml_platform.registry.prediction import Fitted, predict
from ml_platform.registry.promotions import (
    Promotion,
    champion_at,
    champions_of,
    history,
    latest_decision,
    partitions_written_by,
    point_alias,
    promotions_table,
    record,
    rollback,
)
from ml_platform.registry.versions import ModelVersion, TrainedModel

__all__ = [
    "Fitted",
    "ModelVersion",
    "Promotion",
    "Registry",
    "TrainedModel",
    "champion_at",
    "champions_of",
    "history",
    "latest_decision",
    "partitions_written_by",
    "point_alias",
    "predict",
    "promotions_table",
    "record",
    "rollback",
]
