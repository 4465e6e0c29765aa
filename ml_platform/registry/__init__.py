"""Model versions, which of them serves when, and the one way to predict with them."""

from ml_platform.registry.approvals import answer, waiting
from ml_platform.registry.card import (
    Card,
    card_markdown,
    decision_tags,
    describe_version,
    read_card,
)
from ml_platform.registry.champion_periods import (
    ChampionPeriod,
    champion_periods,
    predecessors,
    served_ranges,
)
from ml_platform.registry.mirrors import MirrorDifference, differences, point_alias, repair
from ml_platform.registry.models import Registry
from ml_platform.registry.prediction import (
    Fitted,
    named_predictions,
    predict,
    predict_columns,
    select_inputs,
)
from ml_platform.registry.promotions import (
    NOT_JUDGED,
    Promotion,
    champion_at,
    champion_if_any,
    champions_of,
    decided_with,
    history,
    latest_decision,
    newest_undecided,
    promotions_table,
    record,
)
from ml_platform.registry.rollouts import Rollout, decide_rollout, rollouts, tried_now
from ml_platform.registry.row_wise import is_row_wise
from ml_platform.registry.served_classes import served_classes
from ml_platform.registry.serving_events import (
    ServingEvent,
    failing,
    note_serving,
    serving_events,
)
from ml_platform.registry.snapshots import trained_snapshots
from ml_platform.registry.unnamed_runs import delete_runs, unnamed_runs
from ml_platform.registry.versions import ModelVersion, SeenColumn, TrainedModel, TrainedVersion

__all__ = [
    "NOT_JUDGED",
    "Card",
    "ChampionPeriod",
    "Fitted",
    "MirrorDifference",
    "ModelVersion",
    "Promotion",
    "Registry",
    "Rollout",
    "SeenColumn",
    "ServingEvent",
    "TrainedModel",
    "TrainedVersion",
    "answer",
    "card_markdown",
    "champion_at",
    "champion_if_any",
    "champion_periods",
    "champions_of",
    "decide_rollout",
    "decided_with",
    "decision_tags",
    "delete_runs",
    "describe_version",
    "differences",
    "failing",
    "history",
    "is_row_wise",
    "latest_decision",
    "named_predictions",
    "newest_undecided",
    "note_serving",
    "point_alias",
    "predecessors",
    "predict",
    "predict_columns",
    "promotions_table",
    "read_card",
    "record",
    "repair",
    "rollouts",
    "select_inputs",
    "served_classes",
    "served_ranges",
    "serving_events",
    "trained_snapshots",
    "tried_now",
    "unnamed_runs",
    "waiting",
]
