"""Who asked for a run is notified when it has ended, besides being able to look."""

from ml_platform.serving.callbacks.callbacks import Callbacks, CallbackState
from ml_platform.serving.callbacks.receivers import Receiver, Receivers
from ml_platform.serving.callbacks.store import Callback, CallbackStore, open_callbacks

__all__ = [
    "Callback",
    "CallbackState",
    "CallbackStore",
    "Callbacks",
    "Receiver",
    "Receivers",
    "open_callbacks",
]
