from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import duckdb
from dagster_duckdb import DuckDBResource
from pydantic import PrivateAttr

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform_dagster.resources.ticks import tick_settings
from ml_platform_dagster.resources.versions import require_version


class LakeResource(DuckDBResource):
    """The lake, attached once a process to an in-memory DuckDB.

    A DuckDB resource like any other for those who write assets of their own: `get_connection`
    yields a connection whose tables are `lake.<use case>.<table>`.
    """

    database: str = ":memory:"
    _lake: Lake = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Settings are read here, in the process that runs, not where definitions are loaded."""
        if context.run is None:
            settings = tick_settings()
        else:
            settings = Settings()
            require_version(settings, context.run.tags)
        self._lake = Lake(settings)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        self._lake.close()

    @property
    def lake(self) -> Lake:
        return self._lake

    @contextmanager
    def get_connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in UTC; closed also when the body raises, unlike the parent's."""
        with self._lake.cursor() as cursor:
            yield cursor
