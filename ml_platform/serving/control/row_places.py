"""Where the rows of a batch by reference are read and its answers are written."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from ml_platform.errors import ParameterRefused
from ml_platform.serving.control.row_files import RowFile
from ml_platform.serving.control.row_tables import RowTable
from ml_platform.settings import ServingSettings, Settings

STATES = ".batches"
"""Folder, below the shared one, of what is known of each batch."""
FOLDER = "ML_PLATFORM_SERVING_BATCHES"


class RowPlace(Protocol):
    """A file or a table."""

    def count(self) -> int:
        """How many rows there are, at least one; ParameterRefused where they cannot be read."""

    def require_absent(self) -> None:
        """Raise ParameterRefused where there is something already."""

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        """The rows, so many at once."""

    def writing(self, batch: str) -> AbstractContextManager[Path]:
        """A Parquet file to write answers of a batch to; it is gone at the end."""

    def publish(self, part: Path) -> None:
        """Have that file's rows appear, all at once."""


class RowPlaces:
    """Files below the folder that callers share, and tables that the operator lets them name."""

    def __init__(self, settings: Settings, serving: ServingSettings) -> None:
        self._settings, self._tables = settings, serving.batch_tables
        self.folder = None if serving.batches is None else serving.batches.resolve()

    def place(self, parameter: str, name: str) -> RowPlace:
        """The file `in/monday.parquet`, or the table `shop:monday` of the database `shop`.

        parameter: of the request, for messages. Raises ParameterRefused.
        """
        if self.folder is None:
            raise ParameterRefused(
                parameter, f"no folder for batches is set: {FOLDER}, which the operator decides"
            )
        if ":" in name and not name.endswith(".parquet"):
            return RowTable.named(self._settings, self._tables, parameter, name)
        return RowFile.named(self.folder, self.folder / STATES, parameter, name)
