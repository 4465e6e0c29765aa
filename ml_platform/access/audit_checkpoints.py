"""Where the audit ended after each row, kept in a file beside the lake.

The lake's chain of hashes alone cannot show that its last rows are gone, nor that somebody rebuilt
all of it. Whoever can write the lake and not this file cannot hide either from this machine.
"""

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass

from ml_platform.settings import Settings

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AuditCheckpoint:
    """The end of the chain at some time."""

    rows: int
    hash: str
    """Of the last row."""

    def __str__(self) -> str:
        return f"{self.rows} {self.hash}"


class AuditCheckpoints:
    """The ends that rows which were recorded on this machine had; the file is only appended to."""

    def __init__(self, settings: Settings) -> None:
        self.file = settings.root / "audit" / "heads.jsonl"

    def keep(self, checkpoint: AuditCheckpoint) -> None:
        """Append an end; that it cannot be kept is logged: the row itself is in the lake."""
        # A line that was cut short, as the disk was full or the power went, stays by itself.
        line = f"\n{json.dumps({'rows': checkpoint.rows, 'hash': checkpoint.hash})}\n"
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            # Closed and open to others again: whole lines appended at once do not mix.
            file = os.open(self.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(file, line.encode())
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            LOG.warning("the end of the audit is not kept in %s: %s", self.file, error)

    def read(self) -> list[AuditCheckpoint]:
        """All of them, as they were appended."""
        try:
            text = self.file.read_text()
        except FileNotFoundError:
            return []
        found = []
        for line in text.splitlines():
            # One that was cut short is no end that was kept.
            with suppress(ValueError):
                found.append(AuditCheckpoint(**json.loads(line)))
        return found
