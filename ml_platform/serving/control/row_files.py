"""Parquet files of rows to predict and of answers."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.errors import ParameterRefused


@dataclass(frozen=True)
class RowFile:
    """A file below the folder that callers share."""

    path: Path

    @classmethod
    def named(cls, folder: Path, states: Path, parameter: str, name: str) -> "RowFile":
        """The file of a name; ParameterRefused where it can be none."""
        try:
            path = (folder / name).resolve()
            path.exists()
        except (OSError, RuntimeError) as error:
            raise ParameterRefused(
                parameter, f"'{name[:60]}' is not a valid file name: {error}"
            ) from None
        if not path.is_relative_to(folder) or path == folder or path.is_relative_to(states):
            raise ParameterRefused(parameter, f"'{name}' is not below the folder for batches")
        if path.suffix != ".parquet":
            raise ParameterRefused(
                parameter, f"'{name}' should end in .parquet, or be a table as database:table"
            )
        return cls(path)

    def require_absent(self) -> None:
        if self.path.exists():
            raise ParameterRefused(
                "answers", f"'{self.path.name}' is there already; name another file"
            )

    def count(self) -> int:
        try:
            count = int(pq.read_metadata(self.path).num_rows)
        except FileNotFoundError:
            raise ParameterRefused("rows", f"there is no file '{self.path.name}'") from None
        except (OSError, pa.ArrowException) as error:
            raise ParameterRefused(
                "rows", f"'{self.path.name}' is not a Parquet file: {error}"
            ) from None
        if not count:
            raise ParameterRefused("rows", f"'{self.path.name}' has no rows")
        return count

    def chunks(self, rows: int) -> Iterator[pa.Table]:
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(rows):
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])

    @contextmanager
    def writing(self, batch: str) -> Iterator[Path]:
        # Beside it, so that it comes to its place in one step.
        part = self.path.with_name(f".{self.path.name}.{batch}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield part
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def publish(self, part: Path) -> None:
        part.replace(self.path)
