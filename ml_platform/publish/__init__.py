"""Bring predictions and features to tables that others own."""

from ml_platform.publish.publishing import PublishReport, publish_range
from ml_platform.publish.record import Counted, record_table
from ml_platform.publish.whole_tables import write_whole_table

__all__ = ["Counted", "PublishReport", "publish_range", "record_table", "write_whole_table"]
