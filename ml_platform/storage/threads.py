"""With how many threads DuckDB computes: with one, where more only get in each other's way.

Each thread that writes to a table prepares every column of it, and what several wrote is put in
order again. Of a wide table this takes many times as long as its rows do, where these are few.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import duckdb

WIDE = 100
"""Tables of more columns are wide."""
FEW_BYTES = 32 * 2**20
"""So much is read or written by one thread in less than a second."""
BYTES_A_VALUE = 8
"""Of a column, roughly."""

Cursors = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


class Threads:
    """DuckDB's threads: one while little of a wide table is computed; safe between threads."""

    def __init__(self, cursors: Cursors) -> None:
        self._cursors = cursors
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1

    @contextmanager
    def suited(self, columns: int, size: Callable[[], int]) -> Iterator[None]:
        """Compute a table of so many columns with one thread, if it is wide and little of it.

        Holds for the whole process. size: its bytes, roughly; asked for where the table is wide.
        """
        if columns <= WIDE or size() > FEW_BYTES:
            yield
            return
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = self._set(1)
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users:
                    self._set(self._before)

    def _set(self, threads: int) -> int:
        """Set a number of threads; the one before."""
        with self._cursors() as cursor:
            row = cursor.execute("SELECT current_setting('threads')").fetchone()
            cursor.execute(f"SET threads = {threads:d}")
        return int(row[0]) if row else threads
