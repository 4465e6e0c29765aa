"""Feature views, the point-in-time join, and the frame that estimators are given."""

from ml_platform.features.frame import assemble, join_sql, split_by_window
from ml_platform.features.leak import LeakReport, check_leak
from ml_platform.features.views import (
    compute_features,
    compute_labels,
    entity_types,
    feature_view_table,
    inside_sql,
    instant,
    labels_table,
    windows_sql,
)

__all__ = [
    "LeakReport",
    "assemble",
    "check_leak",
    "compute_features",
    "compute_labels",
    "entity_types",
    "feature_view_table",
    "inside_sql",
    "instant",
    "join_sql",
    "labels_table",
    "split_by_window",
    "windows_sql",
]
