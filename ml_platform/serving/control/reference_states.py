"""How far each batch by reference is, in files that every worker reads."""

import os
import re
import socket
import time
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from ml_platform.serving.control.documents import OVER, Status

REFERENCE = re.compile(r"rows-[0-9a-f]{16}")
"""What a batch by reference is called."""
SILENT_SECONDS = 60.0
"""A batch that has said nothing for so long has lost its worker."""


class BatchState(msgspec.Struct):
    """What is known of a batch."""

    id: str
    use_case: str
    status: Status
    rows: str
    answers: str
    by: str
    reason: str | None
    version: int
    worker: str
    """Host and process that predicts it."""
    created_at: str
    said_at: float
    """When it last said how far it is, in seconds since 1970."""
    done: int = 0
    of: int = 0
    ended_at: str | None = None
    failures: list[str] = []


class States:
    """A folder of states, one file for each batch; without a folder there is none."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def read(self, name: str) -> BatchState | None:
        """The state of a batch as it is now; None where there is none.

        One whose worker says nothing any more has failed.
        """
        if self._folder is None or not REFERENCE.fullmatch(name):
            return None
        try:
            content = self._file(name).read_bytes()
        except FileNotFoundError:
            return None
        return _standing(msgspec.json.decode(content, type=BatchState))

    def write(self, state: BatchState) -> None:
        """Store a state, and that it is of now."""
        state.said_at = time.time()
        file = self._file(state.id)
        file.parent.mkdir(parents=True, exist_ok=True)
        # Whoever reads it meanwhile sees the whole old one or the whole new one.
        fresh = file.with_suffix(f".{os.getpid()}.fresh")
        fresh.write_bytes(msgspec.json.encode(state))
        fresh.replace(file)

    def ask_to_end(self, name: str) -> None:
        """Have the worker that predicts a batch end it."""
        self._ending(name).touch()

    def is_to_end(self, name: str) -> bool:
        """Whether somebody has asked for that."""
        return self._ending(name).exists()

    def _file(self, name: str) -> Path:
        assert self._folder is not None
        return self._folder / f"{name}.json"

    def _ending(self, name: str) -> Path:
        return self._file(name).with_suffix(".end")


def _standing(state: BatchState) -> BatchState:
    silent = state.status == "running" and time.time() - state.said_at > SILENT_SECONDS
    host, _, process = state.worker.rpartition(":")
    gone = host == socket.gethostname() and not psutil.pid_exists(int(process))
    if state.status in OVER or not (silent or gone):
        return state
    lost = "the worker that predicted it is gone; send it again"
    return msgspec.structs.replace(state, status="failed", failures=[lost])
