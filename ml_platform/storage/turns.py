"""Writers of one lake take turns, and start again where another one was faster all the same."""

import fcntl
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import duckdb

from ml_platform.errors import CommitConflict
from ml_platform.failures import reason

T = TypeVar("T")

# What DuckLake says itself, of two transactions on the same tables.
DUCKLAKE = re.compile(
    r"^TransactionContext Error: Failed to commit: (Failed to commit DuckLake transaction\.\s+)?"
    r"Transaction conflict - attempting to |^TransactionContext Error: .*\bTransaction conflict: "
    r"|^TransactionContext Error: .*\bwrite-write conflict on ",
    re.DOTALL,
)
# What the catalog's database says, at the end of what DuckLake passes on. PostgreSQL is asked to
# speak English (LC_MESSAGES) when it is attached.
SQLITE = re.compile(
    r"(^|: )(database (table )?is locked|UNIQUE constraint failed: ducklake_\w+\.\w+"
    r"|table \"?ducklake_\w+\"? already exists)\s*$"
)
POSTGRES = re.compile(
    r"ERROR:\s+(could not serialize access|deadlock detected"
    # Of DuckLake's own tables, and of tables that two make at once.
    r"|duplicate key value violates unique constraint \"(ducklake|pg)_"
    r"|relation \"\w+\" already exists)"
)
OF_THE_CATALOG = (
    duckdb.TransactionException, duckdb.IOException, duckdb.InvalidInputException,
    duckdb.InternalException, duckdb.HTTPException,
)  # fmt: skip
"""As what DuckDB passes on what the catalog's database says; besides its base, `duckdb.Error`."""
FIRST_WAIT_SECONDS = 0.02
LONGEST_WAIT_SECONDS = 0.5
FIRST_LOOK_AGAIN_SECONDS = 0.002
LONGEST_LOOK_AGAIN_SECONDS = 0.05
LONGEST_TURN_SECONDS = 60.0


def lost_race(error: duckdb.Error) -> bool:
    """Whether a transaction failed only because another one came first.

    Words of a query never decide it, only those of DuckLake and of the catalog's database, in the
    errors in which they come.
    """
    if isinstance(error, duckdb.TransactionException) and DUCKLAKE.search(str(error)):
        return True
    if type(error) is not duckdb.Error and not isinstance(error, OF_THE_CATALOG):
        return False
    said = reason(error)
    return bool(SQLITE.search(said) or POSTGRES.search(said))


def retried(attempt: Callable[[], T], retries: int, what: str) -> T:
    """Call `attempt` until it loses no race; CommitConflict after `retries` more attempts.

    Errors that trying again cannot mend are raised at once.
    """
    wait = FIRST_WAIT_SECONDS
    for left in range(retries, -1, -1):
        try:
            return attempt()
        except duckdb.Error as error:
            if not lost_race(error):
                raise
            if not left:
                raise CommitConflict(
                    f"{what}: other writers came first {retries + 1} times: {error}"
                ) from error
        # Full jitter: writers that collided once spread out instead of colliding again.
        time.sleep(random.uniform(0, wait))
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)
    raise AssertionError("unreachable: the last attempt returns or raises")


@contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Wait until no other process or thread of this machine is in its turn; None waits for no one.

    The operating system ends the turn of a process that dies.
    """
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        # The turn saves work that would be lost to another writer; it is not what keeps the lake
        # whole. So a process that hangs in its turn delays the others and does not stop them.
        until = time.monotonic() + LONGEST_TURN_SECONDS
        wait = FIRST_LOOK_AGAIN_SECONDS
        while not _taken(file.fileno()) and time.monotonic() < until:
            time.sleep(random.uniform(0, wait))
            wait = min(2 * wait, LONGEST_LOOK_AGAIN_SECONDS)
        yield


@contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Wait until no other process or thread of this machine holds a lock, however long it takes.

    The operating system releases that of a process that dies.
    """
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
