"""Data files that the catalog names and that are missing or damaged, and what they held."""

import re
from dataclasses import dataclass

import duckdb

from ml_platform.errors import DataFileLost, InputsChanged
from ml_platform.failures import is_unavailable, one_line
from ml_platform.spec.queries import literal
from ml_platform.storage.known_files import KnownFile, file_key, known_files
from ml_platform.storage.stored_files import StoredFiles

NAMED = re.compile(r"""['"]([^'"]*(?:ducklake-[0-9a-f-]{36}|spark-[0-9a-f]{16})[^'"]*)['"]""")
"""A data file in what DuckDB says; others of its errors name none."""
WRONG_TAG = "Computed AES tag differs"
"""What DuckDB says of an encrypted file that was changed; it does not say which."""


@dataclass(frozen=True)
class LostFile:
    """A file that cannot be read as the catalog knows it."""

    file: KnownFile
    problem: str

    def __str__(self) -> str:
        return f"data file {self.file.path} {self.problem}: it holds {self.file.held}"


def find_lost(
    cursor: duckdb.DuckDBPyConnection, root: str, *, reading: bool = False
) -> list[LostFile]:
    """Files that are missing or of another size than the catalog says; the newest first to last.

    reading: read each of them in full as well, which shows most other damage. What changed in an
    unencrypted file without breaking it shows only beside the digest in a backup.
    """
    sizes = {file_key(p): size for p, size in StoredFiles(cursor, root).sizes().items()}
    lost = []
    for file in list(known_files(cursor, root)):
        problem = _problem(file, sizes.get(file_key(file.path)))
        if problem is None and reading:
            problem = _unreadable(cursor, file)
        if problem is not None:
            lost.append(LostFile(file, problem))
    return lost


def lost_file_error(
    error: duckdb.Error, cursor: duckdb.DuckDBPyConnection, root: str
) -> DataFileLost | InputsChanged | None:
    """What an error of DuckDB means where a data file is the reason; None where none is.

    InputsChanged where the catalog has come to name another file in its place.
    """
    text = one_line(error)
    if WRONG_TAG in text:
        return DataFileLost(
            "an encrypted data file was changed since it was written; `ml-platform verify "
            "--reading` says which"
        )
    named = NAMED.search(text)
    if named is None:
        return None
    try:
        found = next(known_files(cursor, root, file_key(named[1])), None)
        if found is None:
            return _replaced(named[1], cursor, root)
        size = _size(cursor, found.path)
    except duckdb.Error:
        return None
    problem = _problem(found, size) or f"cannot be read ({text.rpartition(': ')[2]})"
    return DataFileLost(
        f"{LostFile(found, problem)}. `ml-platform repair --backup …` brings it back from a "
        "backup; without one, `ml-platform repair` computes again what can be"
    )


def _replaced(path: str, cursor: duckdb.DuckDBPyConnection, root: str) -> InputsChanged | None:
    if not path.startswith(f"{root.rstrip('/')}/") or _size(cursor, path) is not None:
        return None
    name = path.rpartition("/")[2]
    return InputsChanged(f"data file {name} was replaced while it was read; do the same again")


def _problem(file: KnownFile, size: int | None) -> str | None:
    if size is None:
        return "is missing"
    return None if size == file.bytes else f"has {size:,} bytes of {file.bytes:,}"


def _size(cursor: duckdb.DuckDBPyConnection, path: str) -> int | None:
    folder, _, name = path.rpartition("/")
    return StoredFiles(cursor, folder).size(name)


def _unreadable(cursor: duckdb.DuckDBPyConnection, file: KnownFile) -> str | None:
    key = (
        f", encryption_config => {{footer_key_value: from_base64({literal(file.key)})}}"
        if file.key
        else ""
    )
    try:
        cursor.execute(
            f"SELECT bit_xor(hash(t)) FROM read_parquet({literal(file.path)}{key}) t"
        ).fetchone()
    except duckdb.Error as error:
        failure = one_line(error)
        if is_unavailable(error):
            raise
        return f"cannot be read ({failure.rpartition(': ')[2]})"
    return None
