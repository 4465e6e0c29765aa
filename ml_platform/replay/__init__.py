"""When to retrain: the policy that live sensors and a replay of history share."""

from ml_platform.replay.policy import Trigger, retraining_due, scheduled_cutoffs

__all__ = ["Trigger", "retraining_due", "scheduled_cutoffs"]
