"""What ingesting a range came to."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ml_platform.errors import FileRefused
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Written
from ml_platform.storage.tables import naive_utc


@dataclass(frozen=True)
class WindowCounts:
    """Rows of one window: landed = ingested + quarantined."""

    landed: int
    ingested: int
    quarantined: int
    changed: bool
    """Whether the window holds other rows than before, in the source or in quarantine."""


@dataclass(frozen=True)
class IngestReport:
    """What ingesting a range came to."""

    snapshot: int
    windows: Mapping[Window, WindowCounts]
    """Every window of the range, those where nothing has landed too."""
    refused: tuple[FileRefused, ...]
    """Files that are in landing and cannot be ingested, whatever window they are about."""
    ignored_columns: tuple[str, ...]
    """Columns that files have and the source does not declare."""
    files: int
    """Landing files with rows in the range."""
    versions: Mapping[Window, str]
    """What the source holds of each window now, as a digest."""


def report_on(
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    landed: Mapping[datetime, int],
    rows: Written,
    quarantined: Written,
    refused: tuple[FileRefused, ...] = (),
    ignored_columns: tuple[str, ...] = (),
    files: int = 0,
) -> IngestReport:
    """The report on what was written.

    landed: rows that landed, by start of window in UTC without an offset.
    """
    changed = rows.changed | quarantined.changed
    return IngestReport(
        snapshot=snapshot,
        windows={
            window: WindowCounts(
                landed=landed.get(naive_utc(window.start), 0),
                ingested=rows.rows[window],
                quarantined=quarantined.rows[window],
                changed=window in changed,
            )
            for window in use_case.calendar.windows(window_range)
        },
        refused=refused,
        ignored_columns=ignored_columns,
        files=files,
        versions=rows.versions,
    )
