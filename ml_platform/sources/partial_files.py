"""Which files somebody is still writing, as far as that can be known from outside."""

import zlib
from collections.abc import Iterable
from datetime import datetime
from gzip import BadGzipFile, GzipFile

from ml_platform.settings import Settings
from ml_platform.sources.listing import ListedFile
from ml_platform.sources.opening import most_unzipped, open_file
from ml_platform.spec.inputs import Source

BLOCK_BYTES = 2**20
PARQUET_MAGIC = b"PAR1"


def unfinished(
    settings: Settings, source: Source, files: Iterable[ListedFile], now: datetime
) -> dict[str, str]:
    """Why files are left alone for now, by name.

    A file is left until it has been quiet for `landing_settle_seconds`, and one whose end is not
    there yet until `landing_patience_seconds`: then it is taken as it is, and refused if it cannot
    be read. Object stores show whole objects only.
    """
    moment = now.timestamp()
    left: dict[str, str] = {}
    for file in files:
        if file.problem is not None or file.content is not None:
            continue
        # A clock that is ahead makes files from the future, which are not left for ever.
        age = abs(moment - file.written_us / 1e6)
        if file.is_remote or age >= settings.landing_patience_seconds:
            continue
        if age < settings.landing_settle_seconds:
            left[file.name] = f"was written {age:.0f} s ago"
        elif problem := _missing_end(source, file):
            left[file.name] = problem
    return left


def _missing_end(source: Source, file: ListedFile) -> str | None:
    if not file.size:
        return "is empty so far"
    try:
        with open_file(file.path) as stream:
            if file.is_gzip:
                return _cut_off(GzipFile(fileobj=stream), most_unzipped(file.size))
            stream.seek(-min(file.size, len(PARQUET_MAGIC)), 2)
            end = stream.read()
    except OSError:
        # Gone again, or not for us: ingesting it says so.
        return None
    if source.file_format == "parquet":
        return None if end == PARQUET_MAGIC else "has no Parquet footer yet"
    return None if end.endswith(b"\n") else "ends in the midst of a line"


def _cut_off(stream: GzipFile, most_bytes: int) -> str | None:
    try:
        # What unzips to more than that is refused, whatever its end.
        while stream.tell() <= most_bytes and stream.read(BLOCK_BYTES):
            pass
    except EOFError:
        return "ends in the midst of its zipped content"
    except (BadGzipFile, zlib.error):
        return None
    return None
