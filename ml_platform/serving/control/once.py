"""A request that comes again under the same key gets the same answer, and nothing is done twice.

Three things hold that together:

- The transaction in which a key's answer is looked for, the deed done and the answer stored is one
  write transaction of SQLite. Of two requests with one key, in whatever worker of this machine, the
  second waits for the first. The operating system ends the transaction of a worker that dies.
- What is done bears the key itself: runs as tags, decisions in their commit. So it is found again
  where a worker died between doing and storing, or another machine is asked.
- Answers are in several files, by the key's first digit, so that requests with other keys do not
  wait as a rule.
"""

import hashlib
import sqlite3
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from ml_platform.errors import KeyReused, NotKept, Overloaded
from ml_platform.spec.use_case import UseCase

WAIT_SECONDS = 75.0
"""How long a repeat waits for the first; longer than Dagster is given to answer."""
RETRY_SECONDS = 5
KEPT = timedelta(days=30)
REUSED = "this Idempotency-Key came with other parameters before; send a new key for something else"
REQUEST_NAME = "ml_platform/request"
"""Tag of runs that says which request wanted them, as the audit does."""
KEY_NAME, BODY_NAME = "ml_platform/idempotency_key", "ml_platform/idempotency_body"
"""Tags of runs that were started under a key."""
COMMIT_KEY, COMMIT_BODY = "idempotency_key", "idempotency_body"
"""The same in the commits of decisions."""

TABLE = """
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, body TEXT NOT NULL, at REAL NOT NULL, answer BLOB NOT NULL
) WITHOUT ROWID
"""


@dataclass(frozen=True)
class Order:
    """Who wants something done with a use case, and under which key."""

    use_case: UseCase
    by: str
    key: str | None = None
    """Digest of caller, path and Idempotency-Key; None where there was no such header."""
    body: str = ""
    """Digest of the key and the parameters."""
    run_id: str = field(default_factory=lambda: f"api-{uuid.uuid4().hex[:8]}")
    """What the lake's snapshots, the audit and tags of runs say of this request."""

    @property
    def tags(self) -> Mapping[str, str]:
        """What a run tells of who wanted it; Dagster's own tag `user` among it."""
        under = {} if self.key is None else {KEY_NAME: self.key, BODY_NAME: self.body}
        return {"user": self.by, "ml_platform/by": self.by, REQUEST_NAME: self.run_id, **under}

    @property
    def extra(self) -> Mapping[str, str]:
        """What the commit of a decision tells of it."""
        return {} if self.key is None else {COMMIT_KEY: self.key, COMMIT_BODY: self.body}

    def require_same(self, body: str | None) -> None:
        """Raise KeyReused where other parameters were sent under this key before."""
        if body != self.body:
            raise KeyReused(REUSED)


@dataclass(frozen=True)
class Outcome:
    """What came of an order."""

    document: Mapping[str, Any]
    run: str | None = None
    """What can be looked at until it is over; None where nothing is under way."""
    is_repeat: bool = False
    """Whether it is the answer that was given before."""


class Once:
    """Answers by key, in a folder of this machine."""

    def __init__(self, folder: Path, wait_seconds: float = WAIT_SECONDS) -> None:
        self._folder, self._wait_seconds = folder, wait_seconds

    def __call__(self, order: Order, do: Callable[[], Outcome]) -> Outcome:
        """What `do` returns, or returned when it was called under the same key before.

        Nothing is kept of what `do` raises. Raises KeyReused; Overloaded where the first request
        is not answered for long; NotKept where the disk is full, say.
        """
        if order.key is None:
            return do()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotKept(f"{self._folder} cannot be written to: {error}") from error
        file = self._folder / f"answers-{order.key[0]}.sqlite"
        try:
            with closing(
                sqlite3.connect(file, timeout=self._wait_seconds, isolation_level=None)
            ) as answers:
                return self._answer(answers, order, order.key, do)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise Overloaded(
                    "a request with this Idempotency-Key is still being carried out; ask again",
                    RETRY_SECONDS,
                ) from error
            raise NotKept(f"the answer could not be stored in {file}: {error}") from error

    def _answer(
        self, answers: sqlite3.Connection, order: Order, key: str, do: Callable[[], Outcome]
    ) -> Outcome:
        # From here on until the end: whoever else comes with the key waits.
        answers.execute("BEGIN IMMEDIATE")
        answers.execute(TABLE)
        row = answers.execute("SELECT body, answer FROM answers WHERE key = ?", [key]).fetchone()
        if row is not None:
            body, stored = row
            order.require_same(body)
            return replace(msgspec.json.decode(stored, type=Outcome), is_repeat=True)
        outcome = do()
        now = time.time()
        answers.execute("DELETE FROM answers WHERE at < ?", [now - KEPT.total_seconds()])
        answers.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?)",
            [key, order.body, now, msgspec.json.encode(outcome)],
        )
        answers.execute("COMMIT")
        return outcome


def order_of(
    use_case: UseCase, by: str, path: str, key: str | None, parameters: msgspec.Struct
) -> Order:
    """An order; key: the Idempotency-Key, which counts for one caller and path."""
    if key is None:
        return Order(use_case, by)
    known = _digest(by, path, key)
    return Order(use_case, by, known, _digest(known, parameters))


def _digest(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
