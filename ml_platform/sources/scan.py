"""A first look at text files: how they begin, and how many lines they have.

DuckDB's CSV reader, asked to store what it rejects, forgets some of it when it reads many files at
once (1.5.5: an unclosed quote beside files with other mistakes). So lines are counted here, and a
file of which not every line has become a row is read again, with care.
"""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import BinaryIO, cast

import duckdb

from ml_platform.sources.landing import LandingFile
from ml_platform.sources.listing import first_line
from ml_platform.spec.queries import exact_path

BLOCK_BYTES = 2**20


@dataclass(frozen=True)
class Scan:
    """How a text file begins, and how long it is."""

    head: bytes
    """Up to a mebibyte, unzipped, without a byte order mark."""
    lines: int
    """The last one may lack its line end."""


def scan(cursor: duckdb.DuckDBPyConnection, file: LandingFile) -> Scan:
    """Read a file once, in blocks; ValueError says why that does not work."""
    head, last, lines = b"", b"", 0
    with opened(cursor, file) as stream:
        while block := stream.read(BLOCK_BYTES):
            head, last = head or block, block
            lines += block.count(b"\n")
    return Scan(head.removeprefix(b"\xef\xbb\xbf"), lines + (not last.endswith(b"\n")))


@contextmanager
def opened(cursor: duckdb.DuckDBPyConnection, file: LandingFile) -> Iterator[BinaryIO]:
    """The unzipped bytes of a file; ValueError where it cannot be opened or is damaged."""
    try:
        with _raw(cursor, file) as raw:
            yield cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if file.is_gzip else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"cannot be unzipped: {error}") from error
    except (OSError, duckdb.Error) as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ValueError(f"cannot be read: {reason}") from error


def _raw(cursor: duckdb.DuckDBPyConnection, file: LandingFile) -> BinaryIO:
    if not file.is_remote:
        return open(file.path, "rb")
    row = cursor.execute("SELECT content FROM read_blob(?)", [exact_path(file.path)]).fetchone()
    return BytesIO(row[0] if row else b"")
