"""What was derived from files, kept until one of them changes, so that it is not derived again."""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import duckdb

from ml_platform.spec.use_case import digest

LIBRARIES = ("pydantic", "PyYAML", "sqlglot", "tzdata")
"""What they say of a use case may change with their versions; DuckDB's has a function."""


@dataclass(frozen=True)
class FileState:
    """A file as it was at one moment."""

    content: str
    """Digest of its bytes."""
    changed: tuple[int, ...]
    """What the file system counts on with every change; the content may be back what it was."""

    @classmethod
    def of(cls, file: Path) -> "FileState":
        """The state of a file; OSError where it cannot be read."""
        found, content = file.stat(), file.read_bytes()
        changed = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        return cls(hashlib.sha256(content).hexdigest(), changed)


def states(folder: Path, names: Iterable[str]) -> dict[str, FileState] | None:
    """States of files of a folder by name; None where one cannot be read."""
    try:
        return {name: FileState.of(folder / name) for name in names}
    except OSError:
        return None


class JsonCache:
    """Values by name in a folder, as JSON: nothing of them is ever executed.

    A file begins with a digest of what its value was derived from, and one of the value. A value
    that was derived from something else, or that cannot be read, is not there; one that cannot be
    written is not kept. Processes may read and write at the same time: files are replaced whole.
    """

    def __init__(self, folder: Path) -> None:
        """folder: made where the one around it exists."""
        self._folder = folder

    def read(self, name: str, source: str) -> Any | None:
        """The value of a name, if it was derived from `source`."""
        try:
            head, _, body = self._file(name).read_text(encoding="utf-8").partition("\n")
            return json.loads(body) if head == _head(source, body) else None
        except (OSError, ValueError):
            return None

    def write(self, name: str, source: str, value: Any) -> None:
        """Keep a value in place of the one that the name had."""
        body = json.dumps(value)
        with suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            handle, written = tempfile.mkstemp(dir=self._folder, suffix=".part")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(f"{_head(source, body)}\n{body}")
                os.replace(written, self._file(name))
            except OSError:
                os.unlink(written)

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def _head(source: str, body: str) -> str:
    return f"{source} {hashlib.sha256(body.encode()).hexdigest()}"


@cache
def way_of_deriving() -> str:
    """Digest of what decides, beside a use case's files, what is derived from them.

    That is the code of this package, and the versions of what it asks.
    """
    package = Path(__file__).parent
    code = {
        str(file.relative_to(package)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(package.rglob("*.py"))
    }
    return digest(code, duckdb.__version__, platform.python_version(), _versions())


def _versions() -> Mapping[str, str]:
    found = {}
    for name in LIBRARIES:
        with suppress(ModuleNotFoundError):
            found[name] = version(name)
    return found
