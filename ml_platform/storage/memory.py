"""How much memory DuckDB takes for rows in flight before it continues with them on disk."""

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import duckdb

from ml_platform.errors import PlatformError
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal

BYTES_A_THREAD = 128 * 2**20
"""What DuckDB's own guide asks for at least."""

OUT_OF_MEMORY = "Out of Memory Error"
"""How DuckDB begins to say so."""

Cursors = Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]]


class MemoryLimit:
    """A limit of DuckDB's memory that is lower while some commands run; safe between threads."""

    def __init__(self, settings: Settings, cursors: Cursors) -> None:
        self._settings, self._cursors = settings, cursors
        self._lock = threading.Lock()
        self._users = 0
        self._is_lower = False

    @contextmanager
    def lowered(self) -> Iterator[None]:
        """Keep what does not fit into 128 MiB a thread on disk, in the lake's folder `spill`.

        The limit holds for the whole process. A lower one that is set stays, and where more is
        needed by others at the moment, none is set.
        """
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._is_lower = self._lower()
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._is_lower:
                    self._restore()

    def _lower(self) -> bool:
        with self._cursors() as cursor:
            row = cursor.execute(
                f"""SELECT current_setting('threads') * {BYTES_A_THREAD} AS lowered,
                    parse_formatted_bytes(current_setting('memory_limit')) > lowered"""
            ).fetchone()
            lowered, is_higher = row or (0, False)
            if not is_higher:
                return False
            try:
                cursor.execute(f"SET memory_limit = '{lowered}B'")
            except duckdb.OutOfMemoryException:
                # DuckDB has set it all the same.
                self._restore()
                return False
        return True

    def _restore(self) -> None:
        with self._cursors() as cursor:
            before = self._settings.duckdb_memory
            if before is None:
                # Resetting it changes what is shown, and not what holds.
                cursor.execute("RESET memory_limit")
                row = cursor.execute("SELECT current_setting('memory_limit')").fetchone()
                before = str(row[0]) if row else ""
            cursor.execute(f"SET memory_limit = {literal(before)}")


def is_out_of_memory(error: PlatformError) -> bool:
    """Whether an error came of DuckDB's limit."""
    return OUT_OF_MEMORY in str(error)
