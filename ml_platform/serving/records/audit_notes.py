"""Actions that may not wait for the lake: on disk before they are done, in the audit soon after.

Labels come in many small calls, and each transaction of the lake would make every process look at
it again. So each call is a line in a file, and all lines of a second become rows together.
"""

import secrets
from dataclasses import asdict, replace
from datetime import UTC, datetime

import msgspec
from structlog.typing import FilteringBoundLogger

from ml_platform.access import Action, Audit
from ml_platform.serving.records.segments import ENDING, SegmentWriter, land_orphans
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake

MOST_BYTES = 1_000_000
EVERY_SECONDS = 1.0


class AuditNotes:
    """Actions on their way into the audit; threads may share it."""

    def __init__(self, settings: Settings, lake: Lake) -> None:
        self._audit = Audit(lake)
        folder = settings.root / "audit" / "notes"
        self._segments = SegmentWriter(folder, MOST_BYTES, EVERY_SECONDS)
        land_orphans(folder)

    def note(self, action: Action) -> None:
        """Write down what is about to be done; it survives a power cut. Raises NotKept."""
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        details = {**action.details, "noted_at": now, "note": secrets.token_hex(8)}
        line = msgspec.json.encode(asdict(replace(action, details=details)))
        self._segments.append(line + b"\n", synced=True)

    def deliver(self) -> None:
        """Bring what was noted at least a second ago to the audit, each action once.

        Raises whatever the lake raises; what is not delivered stays for the next time.
        """
        self._segments.land_old()
        commit = Commit("serve", "", "platform/audit")
        for file in sorted(self._segments.folder.glob(f"*{ENDING}")):
            try:
                lines = file.read_bytes().splitlines()
            except FileNotFoundError:
                # Another worker was faster.
                continue
            actions = [msgspec.json.decode(line, type=Action) for line in lines]
            self._audit.record_noted(actions, commit)
            file.unlink(missing_ok=True)

    def try_to_deliver(self, log: FilteringBoundLogger) -> None:
        """As `deliver`; where the lake is unavailable that is logged."""
        try:
            self.deliver()
        except Exception as error:
            # The lake can be unavailable in any way; the files wait.
            log.error("audit_not_delivered", problem=str(error), kind=type(error).__name__)

    def close(self) -> None:
        """Land everything; `deliver` brings it to the audit, now or when a service starts again."""
        self._segments.close()
