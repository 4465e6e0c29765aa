"""Landing files of this machine, opened so that nothing in a folder can hold up who reads it."""

import errno
import os
import stat
from io import BufferedReader

MOST_TIMES_ITS_SIZE = 200
"""How many times its size a zipped file may unzip to; tables unzip to 5 to 50 times theirs."""
ALWAYS_UNZIPPED_BYTES = 64 * 2**20
"""Little files may be mostly the same row, and unzip to this much whatever their size."""


def open_file(path: str) -> BufferedReader:
    """A regular file to read; OSError for a pipe or a device, which would be waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "is not a regular file")
    return os.fdopen(descriptor, "rb")


def most_unzipped(size: int) -> int:
    """Bytes that a zipped file of a size may unzip to."""
    return max(ALWAYS_UNZIPPED_BYTES, MOST_TIMES_ITS_SIZE * size)


def changed_since(path: str, size: int, written_us: int) -> str | None:
    """Whether a file is another than when it was listed, and how; None where it is the same."""
    try:
        status = os.stat(path)
    except OSError as error:
        return f"went while it was read ({error.strerror}); what was ingested of it before stays"
    if (status.st_size, status.st_mtime_ns // 1000) == (size, written_us):
        return None
    return "was written to while it was read; it is taken when it is whole"
