"""Alerts: conditions while they last, events once, each on the channels it is for."""

from ml_platform.alerts.channels import Channel, Channels, Message, try_channels
from ml_platform.alerts.condition import Condition, Findings
from ml_platform.alerts.failures import FailedRun
from ml_platform.alerts.finding import find_conditions
from ml_platform.alerts.ledger import Ledger
from ml_platform.alerts.notification import Notified, notify

__all__ = [
    "Channel",
    "Channels",
    "Condition",
    "FailedRun",
    "Findings",
    "Ledger",
    "Message",
    "Notified",
    "find_conditions",
    "notify",
    "try_channels",
]
