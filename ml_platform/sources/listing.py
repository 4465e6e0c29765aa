"""What lies in a landing folder now: names, sizes and times, nothing opened yet."""

import errno
import fnmatch
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath

import duckdb

from ml_platform.errors import LandingError
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.windows import Cadence
from ml_platform.storage import Lake

GLOB_MAGIC = frozenset("*?[")
Entry = tuple[str, int, int, str | None]
"""Path, bytes, microseconds since 1970, and why it cannot be read."""


@dataclass(frozen=True)
class ListedFile:
    """A file as its folder or object store lists it."""

    name: str
    """Relative to the landing folder where the file is below it."""
    path: str
    """What DuckDB opens: a path or a URL."""
    size: int
    """In bytes."""
    written_us: int
    """When it was written, in microseconds since 1970; thousands of datetimes cost a second. Of
    what cannot be read, when that last changed, its permissions too."""
    problem: str | None = field(default=None, kw_only=True)
    """Why it cannot be a file of a source, whatever is in it; then it is never opened."""
    content: str | None = field(default=None, kw_only=True)
    """Digest of what is in it, of a file that is never written to again: one of a table."""

    @property
    def stat(self) -> tuple[str, int, int]:
        """What changes with every writing of the file, as far as a listing shows."""
        return self.name, self.size, self.written_us

    @property
    def is_remote(self) -> bool:
        return "://" in self.path

    @property
    def is_gzip(self) -> bool:
        return self.path.lower().endswith(".gz")


def landing_folder(lake: Lake, use_case: UseCase) -> str:
    """Folder or URL that relative globs start from, with a slash at its end."""
    return f"{lake.settings.landing_uri.rstrip('/')}/{use_case.name}/"


def landing_glob(lake: Lake, use_case: UseCase, source: str) -> str:
    """The glob of a source, absolute; of one that lands in a database, its table."""
    lands_as = use_case.sources[source].lands_as
    declared = use_case.sources[source]
    absolute = "://" in lands_as or lands_as.startswith("/") or not declared.files
    return lands_as if absolute else landing_folder(lake, use_case) + lands_as


def list_landing(lake: Lake, use_case: UseCase, source: str) -> list[ListedFile]:
    """Files that are in landing now, by name.

    Raises LandingError where the folder or object store cannot be listed.
    """
    folder = landing_folder(lake, use_case)
    files = use_case.sources[source].files
    glob = landing_glob(lake, use_case, source)
    try:
        if "://" in glob:
            found = _list_url(lake, glob)
        elif files.startswith("/"):
            found = list(_scan(*_split(files)))
        else:
            found = list(_scan(folder.rstrip("/"), PurePosixPath(files).parts))
    except (duckdb.Error, OSError) as error:
        raise LandingError(
            f"{use_case.name}/{source}: {glob} cannot be listed: {first_line(error)}"
        ) from error
    beginning = _chosen_from(glob)
    return [
        ListedFile(_shown(path.removeprefix(folder)), path, size, us, problem=problem)
        for path, size, us, problem in sorted(found)
        if not _is_hidden(path[beginning:])
    ]


def state_of(use_case: UseCase, source: str, listed: list[ListedFile]) -> str:
    """Digest of a listing and of the contract that its files have to keep."""
    return digest(contract_of(use_case, source), [file.stat for file in listed])


def contract_of(use_case: UseCase, source: str) -> str:
    """Digest of what decides how a file is read and which windows its rows are in."""
    weekly = use_case.partitions.cadence is Cadence.weekly
    unread = {"end"} if weekly else {"end", "week_starts"}
    declared = use_case.sources[source]
    apart = {"description", "corrections", "corrected_at", *declared.not_declared}
    return digest(
        declared.model_dump(mode="json", exclude=apart),
        use_case.partitions.model_dump(mode="json", exclude=unread),
    )


def first_line(error: Exception) -> str:
    """What an error says, without the hints and the query below it."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def path_columns(path: str) -> frozenset[str]:
    """Columns that folders of a path are named by, as `day=2024-03-09` is, in lower case."""
    folders = path.split("/")[:-1]
    return frozenset(f.partition("=")[0].lower() for f in folders if f.find("=") > 0)


def _chosen_from(glob: str) -> int:
    """Where the part of a path begins that a glob chooses."""
    plain = min((glob.index(letter) for letter in GLOB_MAGIC if letter in glob), default=len(glob))
    return glob.rfind("/", 0, plain) + 1


def _is_hidden(path: str) -> bool:
    """Whether readers of Hive's layout leave a file alone: one that is still written, mostly.

    path: as far as a glob chose it.
    """
    parts = path.split("/")
    return bool(path_columns(path)) and any(part.startswith(("_", ".")) for part in parts)


def _list_url(lake: Lake, glob: str) -> list[Entry]:
    # Without `content` among the columns nothing is downloaded.
    with lake.cursor() as cursor:
        return cursor.execute(
            "SELECT filename, size, epoch_us(last_modified), NULL FROM read_blob(?)", [glob]
        ).fetchall()


def _shown(name: str) -> str:
    """A name as text: bytes that are none are shown by their numbers."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _split(glob: str) -> tuple[str, tuple[str, ...]]:
    parts = PurePosixPath(glob).parts
    plain = 0
    while plain < len(parts) - 1 and GLOB_MAGIC.isdisjoint(parts[plain]):
        plain += 1
    return str(PurePosixPath(*parts[:plain])), parts[plain:]


def _scan(folder: str, patterns: tuple[str, ...]) -> Iterator[Entry]:
    """Files below a folder that a glob matches, as DuckDB's `glob` does.

    DuckDB reports whole seconds, in which a file can be replaced by another one of its size.
    """
    first, rest = patterns[0], patterns[1:]
    try:
        entries = os.scandir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return
    with entries:
        for entry in entries:
            if first == "**":
                yield from _deep(entry, patterns)
            elif _matches(first, entry.name):
                yield from _found(entry, rest)
    if first == "**" and rest:
        yield from _scan(folder, rest)


def _deep(entry: os.DirEntry[str], patterns: tuple[str, ...]) -> Iterator[Entry]:
    if entry.is_dir(follow_symlinks=False):
        yield from _inside(entry, patterns)
    elif len(patterns) == 1:
        yield from _found(entry, ())


def _found(entry: os.DirEntry[str], rest: tuple[str, ...]) -> Iterator[Entry]:
    try:
        if rest:
            if entry.is_dir():
                yield from _inside(entry, rest)
        elif not entry.is_dir():
            yield _described(entry.path, entry.stat())
    except FileNotFoundError:
        # Archived since it was listed, or a link to nowhere.
        return
    except OSError as error:
        # A loop of links. The other files are none of its business.
        yield _unreadable(entry, error)


def _inside(entry: os.DirEntry[str], patterns: tuple[str, ...]) -> Iterator[Entry]:
    """Files in a folder below the one that is listed, which alone may be unreadable."""
    try:
        yield from _scan(entry.path, patterns)
    except OSError as error:
        yield _unreadable(entry, error)


def _described(path: str, status: os.stat_result) -> Entry:
    problem = _problem(path, status)
    written_us = status.st_mtime_ns // 1000 if problem is None else _changed_us(status)
    return path, status.st_size, written_us, problem


def _problem(path: str, status: os.stat_result) -> str | None:
    """Why DuckDB, or anybody, could not read what is there, or would wait for it forever."""
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        return f"is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, not a file"
    if _shown(path) != path:
        return "has a name that is not UTF-8; rename it"
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        return f"cannot be read: {os.strerror(errno.EACCES)}"
    return None


def _unreadable(entry: os.DirEntry[str], error: OSError) -> Entry:
    try:
        changed_us = _changed_us(entry.stat(follow_symlinks=False))
    except OSError:
        changed_us = 0
    return entry.path, 0, changed_us, f"cannot be read: {error.strerror}"


def _changed_us(status: os.stat_result) -> int:
    # Never the time of writing: once it can be read it is another file, which is looked at.
    return max(status.st_mtime_ns, status.st_ctime_ns) // 1000 + 1


@lru_cache(maxsize=64)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(fnmatch.translate(glob))


def _matches(glob: str, name: str) -> bool:
    return _pattern(glob).match(name) is not None
