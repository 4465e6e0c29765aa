"""The lake: attach it, replace partitions in one transaction, read at a snapshot."""

from ml_platform.storage.appending import append
from ml_platform.storage.attaching import attach_database
from ml_platform.storage.lake import Commit, Lake
from ml_platform.storage.replacement import (
    Replacement,
    Written,
    replace_together,
    replace_windows,
)
from ml_platform.storage.tables import Table

__all__ = [
    "Commit",
    "Lake",
    "Replacement",
    "Table",
    "Written",
    "append",
    "attach_database",
    "replace_together",
    "replace_windows",
]
