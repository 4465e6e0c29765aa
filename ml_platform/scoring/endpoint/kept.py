"""Answers that no transaction has written yet, so that who scores again need not ask again.

They are a file of this machine: another one asks again, which costs time and changes nothing.
"""

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np

from ml_platform.scoring.endpoint.answers import Answered

KEPT_SECONDS = 86_400.0
"""Older answers are asked for again: what answers may be another model by then."""
TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, version INTEGER, body BLOB NOT NULL, at REAL NOT NULL
) WITHOUT ROWID
"""
LOG = logging.getLogger(__name__)


class KeptAnswers:
    """Answers by digest of what was asked of whom; safe to share between threads.

    Where the file cannot be written, a warning says so, and nothing is kept.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._lock = file, threading.Lock()
        self._opened: sqlite3.Connection | None = None
        try:
            self._opened = _open(file)
        except (OSError, sqlite3.Error) as error:
            self._warn(error)

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()

    def find(self, key: str) -> Answered | None:
        """What was answered to it, if anything is kept."""
        with self._lock:
            try:
                row = (
                    self._opened
                    and self._opened.execute(
                        "SELECT version, body FROM answers WHERE key = ?", [key]
                    ).fetchone()
                )
            except sqlite3.Error as error:
                self._warn(error)
                return None
        if not row:
            return None
        shape, data = msgspec.msgpack.decode(row[1])
        return Answered(np.frombuffer(data, "<f8").reshape(shape).astype(np.float64), row[0])

    def keep(self, key: str, answered: Answered) -> None:
        """Keep an answer until it is forgotten, or too old."""
        values = answered.values
        body = msgspec.msgpack.encode((values.shape, values.astype("<f8").tobytes()))
        self._write(
            "INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)",
            [(key, answered.version, body, time.time())],
        )

    def forget(self, keys: Iterable[str]) -> None:
        """Forget answers that are in the lake by now."""
        self._write("DELETE FROM answers WHERE key = ?", [(key,) for key in keys])

    def _write(self, statement: str, rows: list[tuple[object, ...]]) -> None:
        with self._lock:
            if self._opened is None:
                return
            try:
                with self._opened:
                    self._opened.executemany(statement, rows)
            except sqlite3.Error as error:
                self._warn(error)
                self._opened.close()
                self._opened = None

    def _warn(self, error: Exception) -> None:
        LOG.warning(
            "answers of the endpoint are not kept in %s (%s): a run that fails asks again for all "
            "of its rows", self._file, error
        )  # fmt: skip


def key_of(where: str, body: bytes) -> str:
    """Digest of what is asked of whom."""
    return hashlib.sha256(where.encode() + b"\n" + body).hexdigest()


def _open(file: Path) -> sqlite3.Connection:
    file.parent.mkdir(parents=True, exist_ok=True)
    opened = sqlite3.connect(file, timeout=30, check_same_thread=False)
    try:
        with closing(opened.cursor()) as cursor:
            # Each answer is a transaction; one that a power cut takes is asked for again.
            cursor.execute("PRAGMA journal_mode = WAL")
            cursor.execute("PRAGMA synchronous = NORMAL")
            cursor.execute(TABLE)
            cursor.execute("DELETE FROM answers WHERE at < ?", [time.time() - KEPT_SECONDS])
        opened.commit()
    except BaseException:
        opened.close()
        raise
    return opened
