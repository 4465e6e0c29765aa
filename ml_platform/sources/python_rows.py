"""Rows that a function of the use case yields, as Arrow batches of a range of event time."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from ml_platform.errors import LakeUnavailable, LandingError, PlatformError
from ml_platform.failures import failure_of
from ml_platform.settings import Settings
from ml_platform.sources.arrow_batches import arrow_relations, schema_of
from ml_platform.sources.contract import type_names
from ml_platform.sources.database_tables import Choose
from ml_platform.sources.selection import Selection
from ml_platform.spec.modules import line_within, run_module
from ml_platform.spec.use_case import UseCase


class PythonRows:
    """What `python:` of a source names, called as `function(start, end, since)`.

    start, end: moments in UTC, None where there is no bound; since: the lowest high-water value of
    the rows that matter, a moment or a number, None for all. With a setting of the source's
    `database` it is given that as `database=…` too. It may yield more than is asked for.
    Raises LandingError where it raises or yields anything but batches with the declared columns,
    LakeUnavailable where a server that it needs does not answer.
    """

    def __init__(self, settings: Settings, use_case: UseCase, source: str) -> None:
        self._settings, self._declared = settings, use_case.sources[source]
        self.named = f"{use_case.name}/{source}: {self._declared.python}"
        file, _, function = self._declared.python.partition(":")
        module = run_module(use_case.name, use_case.folder / f"{file}.py")
        self._file, self._function = str(module.__file__), getattr(module, function)

    def relations(
        self, cursor: duckdb.DuckDBPyConnection, choose: Choose, selection: Selection
    ) -> Iterator[str]:
        """SQL that names some batches each time; one without rows where nothing is yielded.

        The function runs in the thread that asks, and waits while they are read.
        """
        types = type_names(cursor, self._declared.columns)
        nothing = schema_of(cursor, types)
        yield from arrow_relations(cursor, self._batches(selection), choose, nothing)

    def _batches(self, selection: Selection) -> Iterator[pa.RecordBatch]:
        try:
            for each in self._call(selection.start, selection.end, selection.since):
                yield from each.to_batches() if isinstance(each, pa.Table) else (each,)
        except PlatformError:
            raise
        except Exception as error:
            # A use case's own code can fail in any way.
            raise self._named_error(error) from None

    def _named_error(self, error: BaseException) -> PlatformError:
        failure = failure_of(error, self._settings)
        line = line_within(error, self._file)
        at = f"{self.named}, line {line}" if line else self.named
        said = f"{at}: {type(error).__name__}: {failure}"
        return LakeUnavailable(said) if failure.kind == "unavailable" else LandingError(said)

    def _call(self, start: datetime | None, end: datetime | None, since: Any) -> Iterable[Any]:
        function: Callable[..., Iterable[Any]] = self._function
        more = {}
        if "database" in inspect.signature(function).parameters:
            secret = self._settings.databases.get(self._declared.database)
            more = {"database": secret.get_secret_value() if secret else None}
        return function(_utc(start), _utc(end), since, **more)


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None else moment.replace(tzinfo=UTC)
