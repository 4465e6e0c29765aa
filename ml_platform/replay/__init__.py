"""History run again: under retraining policies, which live sensors share, and by an estimator."""

from ml_platform.replay.backtest import Backtest, backtest
from ml_platform.replay.comparison import PolicyComparison, PolicyStanding
from ml_platform.replay.document import as_document, newest_document
from ml_platform.replay.live_observation import observe
from ml_platform.replay.picture import draw_replay
from ml_platform.replay.policy import Seen, Trigger, retraining_due, scheduled_cutoffs
from ml_platform.replay.replay import replay
from ml_platform.replay.replay_request import Policy, default_policies
from ml_platform.replay.walk import Decision, Walked

__all__ = [
    "Backtest",
    "Decision",
    "Policy",
    "PolicyComparison",
    "PolicyStanding",
    "Seen",
    "Trigger",
    "Walked",
    "as_document",
    "backtest",
    "default_policies",
    "draw_replay",
    "newest_document",
    "observe",
    "replay",
    "retraining_due",
    "scheduled_cutoffs",
]
