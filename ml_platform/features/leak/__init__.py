"""The leak check: what was not known is hidden, and nothing may change."""

from ml_platform.features.leak.check import check_leak, check_windows, check_written
from ml_platform.features.leak.coverage import (
    Coverage,
    check_and_note,
    leak_checks_table,
    note_checks,
    read_coverage,
)
from ml_platform.features.leak.report import LeakReport

__all__ = [
    "Coverage",
    "LeakReport",
    "check_and_note",
    "check_leak",
    "check_windows",
    "check_written",
    "leak_checks_table",
    "note_checks",
    "read_coverage",
]
