"""Feature views, their join with examples at a moment, and the same features looked up online."""

from ml_platform.features.feedback import best_sql, counted_sql, given_sql, has_feedback
from ml_platform.features.feedback_counts import FeedbackCounts, count_feedback
from ml_platform.features.frame import assemble, examples_sql, join_sql, split_by_window
from ml_platform.features.known import (
    features_sql,
    label_history_sql,
    labels_sql,
    versions_if_asked,
)
from ml_platform.features.leak import (
    Coverage,
    LeakReport,
    check_and_note,
    check_leak,
    check_windows,
    check_written,
    leak_checks_table,
    note_checks,
    read_coverage,
)
from ml_platform.features.online import (
    OUTCOMES,
    LookedUp,
    OnlineFeatures,
    Outcome,
    online_features,
    open_online_store,
)
from ml_platform.features.online_store import OnlineStore
from ml_platform.features.publishing import Published, publish, publish_views, unpublished
from ml_platform.features.requests import (
    Requested,
    RequestReader,
    needed_columns,
    request_columns,
)
from ml_platform.features.rules import InputRules
from ml_platform.features.spine import join_spine
from ml_platform.features.views import (
    Sight,
    compute_features,
    compute_labels,
    entity_types,
    feature_view_table,
    inside_sql,
    instant,
    labels_table,
    own_labels_sql,
    replace_view,
    since_sql,
    view_sql,
    windows_sql,
)

__all__ = [
    "OUTCOMES",
    "Coverage",
    "FeedbackCounts",
    "InputRules",
    "LeakReport",
    "LookedUp",
    "OnlineFeatures",
    "OnlineStore",
    "Outcome",
    "Published",
    "RequestReader",
    "Requested",
    "Sight",
    "assemble",
    "best_sql",
    "check_and_note",
    "check_leak",
    "check_windows",
    "check_written",
    "compute_features",
    "compute_labels",
    "count_feedback",
    "counted_sql",
    "entity_types",
    "examples_sql",
    "feature_view_table",
    "features_sql",
    "given_sql",
    "has_feedback",
    "inside_sql",
    "instant",
    "join_spine",
    "join_sql",
    "label_history_sql",
    "labels_sql",
    "labels_table",
    "leak_checks_table",
    "needed_columns",
    "note_checks",
    "online_features",
    "open_online_store",
    "own_labels_sql",
    "publish",
    "publish_views",
    "read_coverage",
    "replace_view",
    "request_columns",
    "since_sql",
    "split_by_window",
    "unpublished",
    "versions_if_asked",
    "view_sql",
    "windows_sql",
]
