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
from ml_platform.sources.opening import MOST_TIMES_ITS_SIZE, most_unzipped, open_file
from ml_platform.spec.queries import exact_path

BLOCK_BYTES = 2**20
LONGEST_LINE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class Scan:
    """How a text file begins, and how long it is."""

    head: bytes
    """Up to a mebibyte, unzipped, without a byte order mark."""
    lines: int
    """The last one may lack its line end."""


def scan(cursor: duckdb.DuckDBPyConnection, file: LandingFile) -> Scan:
    """Read a file once, in blocks; ValueError says why that does not work."""
    head, last, lines, length, total = b"", b"", 0, 0, 0
    most_bytes = most_unzipped(file.size) if file.is_gzip else None
    with opened(cursor, file) as stream:
        while block := stream.read(BLOCK_BYTES):
            head, last = head or block, block
            lines += block.count(b"\n")
            # A block is shorter than the limit, so only lines that began before it can exceed it.
            end = block.rfind(b"\n")
            length = len(block) - 1 - end if end >= 0 else length + len(block)
            total += len(block)
            if length > LONGEST_LINE_BYTES:
                raise ValueError(
                    f"line {lines + 1} is longer than {LONGEST_LINE_BYTES >> 20} MiB; does it lack "
                    "its line ends?"
                )
            if most_bytes is not None and total > most_bytes:
                raise ValueError(
                    f"unzips to more than {most_bytes >> 20} MiB, {MOST_TIMES_ITS_SIZE} times its "
                    "size; land it in parts, or unzipped"
                )
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
        return open_file(file.path)
    row = cursor.execute("SELECT content FROM read_blob(?)", [exact_path(file.path)]).fetchone()
    return BytesIO(row[0] if row else b"")
