"""When to retrain: the policy that live sensors and a replay of history share."""

from ml_platform.replay.policy import Seen, Trigger, retraining_due, scheduled_cutoffs
from ml_platform.replay.present import observe

__all__ = ["Seen", "Trigger", "observe", "retraining_due", "scheduled_cutoffs"]
