"""Where Spark finds and leaves files: below the lake's own folder, which every executor reaches."""

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb

from ml_platform.spec.queries import literal
from ml_platform.storage.known_files import file_key

SCHEMES = {"s3://": "s3a://", "gcs://": "gs://", "az://": "abfss://"}
"""How Hadoop calls object stores that DuckDB calls otherwise."""


def spark_path(path: str) -> str:
    """How Spark names a file that DuckDB names so.

    >>> spark_path("s3://lake/files/a.parquet"), spark_path("/srv/lake/a.parquet")
    ('s3a://lake/files/a.parquet', 'file:///srv/lake/a.parquet')
    """
    for ours, theirs in SCHEMES.items():
        if path.startswith(ours):
            return theirs + path.removeprefix(ours)
    return path if "://" in path else f"file://{path}"


@dataclass(frozen=True)
class Folder:
    """A new folder below another one; its name says to upkeep that an engine made it."""

    path: str

    def write(self, cursor: duckdb.DuckDBPyConnection, query: str, name: str) -> str:
        """Write the rows of a query, without holding them, to a Parquet file; its path."""
        path = f"{self.path}/{name}.parquet"
        if self._is_local:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        cursor.execute(f"COPY ({query}) TO {literal(path)} (FORMAT parquet)")
        return path

    def files(self, cursor: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """The Parquet files in it, however deep."""
        found = cursor.execute(f"FROM glob({literal(f'{self.path}/**/*.parquet')})").fetchall()
        return tuple(sorted(path for (path,) in found))

    def remove(self, named: frozenset[str] = frozenset()) -> None:
        """Delete what is in it, but the files that the lake names; they are given by their keys.

        Upkeep does it later on an object store, as it does for a process that was killed.
        """
        if not self._is_local or not Path(self.path).exists():
            return
        for file in sorted(Path(self.path).rglob("*"), reverse=True):
            if file.is_file() and file_key(str(file)) not in named:
                file.unlink()
            elif file.is_dir() and not any(file.iterdir()):
                file.rmdir()
        if not any(Path(self.path).iterdir()):
            shutil.rmtree(self.path)

    @property
    def _is_local(self) -> bool:
        return "://" not in self.path


def new_folder(above: str) -> Folder:
    """A folder that nobody else has; it is there once a file is."""
    return Folder(f"{above}/spark-{secrets.token_hex(8)}")


@contextmanager
def scratch_folder(above: str) -> Iterator[Folder]:
    """A folder of files that live as long as one computation."""
    folder = new_folder(above)
    try:
        yield folder
    finally:
        folder.remove()
