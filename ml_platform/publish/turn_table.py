"""Turns of publishers on several machines, for databases that have no locks by name."""

import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from ml_platform.errors import InputsChanged
from ml_platform.spec.queries import literal, quote

T = TypeVar("T")

TABLE = "ml_platform_turns"
LOOK_AGAIN_SECONDS = 0.2
TAKEN_OVER_SECONDS = 300.0
"""A publisher on another machine that has written nothing for so long is taken to be dead.

Where it is not, it notices before it writes again.
"""
ATTEMPTS = 10
"""So often a transaction is tried that others may be in the way of."""


class Session(Protocol):
    """A connection to a database on which a transaction begins by itself."""

    def execute(self, statement: str) -> list[tuple[Any, ...]]:
        """Run one statement; its rows, where it yields any."""

    def commit(self) -> None: ...

    def rollback(self) -> None: ...


@dataclass(frozen=True, order=True)
class Turn:
    """Whose turn it is, as the row of a name says."""

    number: int
    """Raised by each publisher that takes the turn from one that has not ended it."""
    beat: int
    """Raised by each transaction of that publisher."""
    holder: str
    """Of that publisher its machine, and its name on that machine; empty for nobody."""


NOBODY = Turn(0, 0, "")


class TurnTable:
    """The turn to publish under one name: a row of a small table beside what is published.

    Each transaction of the publisher whose turn it is writes that row first. So it is refused where
    somebody else has taken the turn, and nobody takes it before the transaction has ended.
    machine: a word for the machine of the publisher; of those with the same, one at a time may be
    here. errors: what the database's library raises.
    """

    def __init__(self, session: Session, name: str, machine: str, errors: type[Exception]) -> None:
        self._session, self._errors, self._name = session, errors, name
        self._machine, self._holder = machine, f"{machine} {secrets.token_hex(8)}"
        self._number: int | None = None

    def take(self) -> None:
        """Wait for the turn, and keep it until it is released."""
        self._create()
        seen, since = self._attempt(self._ensured), time.monotonic()
        while not (self._is_over(seen, since) and self._attempt(partial(self._took, seen))):
            time.sleep(random.uniform(0, 2 * LOOK_AGAIN_SECONDS))
            if (now := self._attempt(self._ensured)) != seen:
                seen, since = now, time.monotonic()
        self._number = seen.number + 1

    def hold(self) -> None:
        """Make a transaction that has just begun one of this turn.

        Raises InputsChanged where somebody else has taken the turn.
        """
        if self._number is None:
            return
        self._update("beat = beat + 1", f"number = {self._number:d}")
        if self._current().holder != self._holder:
            raise InputsChanged("another machine has taken the turn to publish, and publishes")

    def release(self) -> None:
        """Let others have the turn, where it is still this one's."""
        self._number = None
        name, mine = f"name = {literal(self._name)}", f"holder = {literal(self._holder)}"
        delete = f"DELETE FROM {quote(TABLE)} WHERE {name} AND {mine}"
        # Where the connection is gone, others wait until the turn is taken to be over.
        with suppress(self._errors):
            self._session.rollback()
            self._attempt(lambda: self._session.execute(delete))

    def _create(self) -> None:
        columns = (
            "name VARCHAR(255) PRIMARY KEY, number BIGINT NOT NULL, beat BIGINT NOT NULL, "
            "holder VARCHAR(255) NOT NULL"
        )
        create = f"CREATE TABLE IF NOT EXISTS {quote(TABLE)} ({columns})"
        try:
            # Not each login that may write the table may create one.
            self._attempt(self._rows, attempts=1)
        except self._errors:
            self._attempt(lambda: self._session.execute(create))

    def _ensured(self) -> Turn:
        """The row, that of nobody where there is none: two cannot change it at once."""
        if not self._rows():
            columns, row = "name, number, beat, holder", f"{literal(self._name)}, 0, 0, ''"
            self._session.execute(f"INSERT INTO {quote(TABLE)} ({columns}) VALUES ({row})")
        return self._current()

    def _is_over(self, seen: Turn, since: float) -> bool:
        # Of this machine nobody else is here: who holds the turn has died.
        is_left = not seen.holder or seen.holder.partition(" ")[0] == self._machine
        return is_left or time.monotonic() - since > TAKEN_OVER_SECONDS

    def _took(self, seen: Turn) -> bool:
        self._update(
            f"number = {seen.number + 1:d}, beat = 0, holder = {literal(self._holder)}",
            f"number = {seen.number:d} AND beat = {seen.beat:d} AND "
            f"holder = {literal(seen.holder)}",
        )
        return self._current().holder == self._holder

    def _update(self, values: str, where: str) -> None:
        name = f"name = {literal(self._name)}"
        self._session.execute(f"UPDATE {quote(TABLE)} SET {values} WHERE {name} AND {where}")

    def _rows(self) -> list[tuple[Any, ...]]:
        columns, name = "number, beat, holder", f"name = {literal(self._name)}"
        return self._session.execute(f"SELECT {columns} FROM {quote(TABLE)} WHERE {name}")

    def _current(self) -> Turn:
        # A database that has keys in name only may have a row of nobody besides.
        found = (Turn(int(number), int(beat), str(holder)) for number, beat, holder in self._rows())
        return max(found, default=NOBODY)

    def _attempt(self, work: Callable[[], T], attempts: int = ATTEMPTS) -> T:
        """What `work` yields in a transaction; it is tried again where others are in its way.

        Which errors say that differs from database to database: any of them may.
        """
        for left in range(attempts - 1, -1, -1):
            try:
                result = work()
                self._session.commit()
                return result
            except self._errors:
                with suppress(self._errors):
                    self._session.rollback()
                if not left:
                    raise
            time.sleep(random.uniform(0, 2 * LOOK_AGAIN_SECONDS))
        raise AssertionError("unreachable: the last attempt returns or raises")
