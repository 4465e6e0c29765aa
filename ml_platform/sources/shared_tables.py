"""What tables of lakes that others own have in common: their files, columns and types."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import duckdb

from ml_platform.errors import LakeUnavailable, LandingError, PlatformError
from ml_platform.extras import not_installed
from ml_platform.failures import failure_of, is_of_a_store
from ml_platform.settings import Settings
from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import ListedFile
from ml_platform.sources.reading import Batch, Reading


class SharedTable(Protocol):
    """One table of a lake, in the state that it had when it was opened."""

    @property
    def files(self) -> Sequence[ListedFile]:
        """Its data files, by name; they are never written to again."""

    @property
    def committed_us(self) -> int:
        """When it came into this state, in microseconds since 1970."""

    def read(self, reading: Reading, files: list[LandingFile]) -> Iterator[Batch]:
        """Every row of some of its files that is not deleted, once.

        Raises LandingError where one cannot be read: a table is read as a whole or not at all, and
        its files never change, so that none would be looked at again. LakeUnavailable where their
        store does not answer.
        """


def table_error(error: Exception, settings: Settings, what: str) -> PlatformError:
    """What a library raises of a table, or of the store that it is in: one line, no password."""
    # What is of a store need not have a module of its library.
    known = error if is_of_a_store(error) else LandingError(str(error))
    failure = failure_of(known, settings)
    kind = LakeUnavailable if failure.kind == "unavailable" else LandingError
    return kind(f"{what}: {failure}")


@contextmanager
def named_errors(settings: Settings, what: str, failed: str = "") -> Iterator[None]:
    """Errors of a table's library as LandingError or LakeUnavailable: one line, no password.

    what: the table; failed: what could not be done with it, where that is not plain.
    """
    try:
        yield
    except PlatformError:
        raise
    except ImportError as error:
        raise LandingError(f"{what}: {not_installed(error)}") from None
    except Exception as error:
        if not isinstance(error, OSError | ValueError) and not is_of_a_store(error):
            raise
        # Not as its cause: what a library says may hold what it connected with.
        raise table_error(error, settings, f"{what} {failed}".rstrip()) from None


def types_of(cursor: duckdb.DuckDBPyConnection, columns: object) -> dict[str, str]:
    """DuckDB's types of an Arrow schema's columns."""
    cursor.register("__schema", columns.empty_table())  # type: ignore[attr-defined]
    rows = cursor.execute("DESCRIBE FROM __schema").fetchall()
    cursor.unregister("__schema")
    return {name: kind for name, kind, *_ in rows}
