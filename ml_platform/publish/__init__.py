"""Bring predictions to tables that others own."""

from ml_platform.publish.publishing import Counted, PublishReport, publish_predictions
from ml_platform.publish.record import record_table

__all__ = ["Counted", "PublishReport", "publish_predictions", "record_table"]
