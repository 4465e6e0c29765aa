"""Feedback that has been written down and that the lake does not have yet."""

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec

from ml_platform.serving.records.outbox import lands_elsewhere, written_below
from ml_platform.serving.records.segments import ENDING, OPEN, landed_as
from ml_platform.sources.ingestions import ingested_files
from ml_platform.sources.listing import list_landing
from ml_platform.spec.queries import exact_path
from ml_platform.spec.use_case import FEEDBACK, UseCase
from ml_platform.storage import Lake


class FeedbackRecord(msgspec.Struct, frozen=True):
    """A record of feedback, as far as it says who said what of a prediction."""

    kind: str
    origin: str
    received_at: datetime
    prediction_id: str | None = None
    label: Any = None
    given_by: str | None = None


def unread_feedback(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, case: UseCase, since: datetime
) -> Iterator[FeedbackRecord]:
    """Records of feedback that were written from a moment on.

    Whoever looks for all that was said reads these first and the lake afterwards: what is ingested
    in between is met twice, and nothing is missed.
    """
    folder = written_below(lake.settings, case)
    # Those that are appended to come first: one that lands meanwhile is then met a second time.
    here = [
        *_names(folder, f"{FEEDBACK}/{OPEN}", ""),
        *_names(folder, FEEDBACK, landed_as(since)),
    ]
    there = list_landing(lake, case, FEEDBACK) if lands_elsewhere(lake.settings) else []
    there = [file for file in there if file.written_us >= since.timestamp() * 1e6]
    asked = [*here, *(file.name for file in there)]
    ingested = ingested_files(lake, cursor, case, FEEDBACK, asked)
    for name in here:
        if name in ingested:
            continue
        path = folder / name
        try:
            if path.stat().st_mtime >= since.timestamp():
                yield from _records_in(path.read_bytes())
        except FileNotFoundError:
            # Landed, brought to landing or archived since it was listed.
            continue
    for file in there:
        if file.name not in ingested:
            read = "SELECT content FROM read_blob(?)"
            for (content,) in cursor.execute(read, [exact_path(file.path)]).fetchall():
                yield from _records_in(content)


def _names(folder: Path, inside: str, first: str) -> list[str]:
    """Files from one on in the order of names, which is that of time: no older one is touched."""
    try:
        found = os.listdir(folder / inside)
    except FileNotFoundError:
        return []
    return [f"{inside}/{name}" for name in found if name >= first and name.endswith(ENDING)]


def _records_in(text: bytes) -> Iterator[FeedbackRecord]:
    # What follows the last line break is a record that is being written.
    for line in text[: text.rfind(b"\n") + 1].splitlines():
        # Whatever else lands among them is quarantined when it is ingested.
        with contextlib.suppress(msgspec.DecodeError):
            yield msgspec.json.decode(line, type=FeedbackRecord)
