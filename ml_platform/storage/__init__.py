"""The lake: attach it, replace partitions in one transaction, read at a snapshot."""

from ml_platform.storage.appending import append, insert, keep_few_files
from ml_platform.storage.attaching import allow_object_stores, attach_database
from ml_platform.storage.basis import Basis, Read, begin_again, compute_windows, read_of
from ml_platform.storage.calendars import (
    StoredCalendar,
    require_calendar,
    settle_calendar,
    stored_calendars,
)
from ml_platform.storage.extensions import connect_with
from ml_platform.storage.lake import BYTES, ROWS, SECONDS, Commit, Lake
from ml_platform.storage.replacement import (
    Replacement,
    Written,
    replace_together,
    replace_windows,
)
from ml_platform.storage.tables import Table

__all__ = [
    "BYTES",
    "ROWS",
    "SECONDS",
    "Basis",
    "Commit",
    "Lake",
    "Read",
    "Replacement",
    "StoredCalendar",
    "Table",
    "Written",
    "allow_object_stores",
    "append",
    "attach_database",
    "begin_again",
    "compute_windows",
    "connect_with",
    "insert",
    "keep_few_files",
    "read_of",
    "replace_together",
    "replace_windows",
    "require_calendar",
    "settle_calendar",
    "stored_calendars",
]
