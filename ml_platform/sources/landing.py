"""What has landed: the files of a source, and what is already known of them."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import LandingError, TableNotFound
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.storage import Commit, Lake
from ml_platform.storage.tables import evolve

LANDINGS = "temp.__landings"


@dataclass(frozen=True)
class LandingFile:
    """One version of one landing file."""

    name: str
    """Relative to the landing folder where the file is below it."""
    path: str
    """What DuckDB opens: a path or a URL."""
    size: int
    """In bytes."""
    modified_at: datetime
    fingerprint: str
    """Changes with the file, and with what its source declares."""

    @property
    def is_remote(self) -> bool:
        return "://" in self.path

    @property
    def is_gzip(self) -> bool:
        return self.path.lower().endswith(".gz")


@dataclass(frozen=True)
class Indexed:
    """What an earlier look at one version of a file found."""

    window_starts: frozenset[datetime] = frozenset()
    """As `window_start` is stored."""
    error: str | None = None
    """Why the file was refused."""


@dataclass(frozen=True)
class LandingIndex:
    """Every file version that was ever looked at."""

    versions: Mapping[tuple[str, str], Indexed] = field(default_factory=dict)
    """By name and fingerprint."""
    modified_at: Mapping[str, datetime] = field(default_factory=dict)
    """When the newest version of each file was modified."""

    def of(self, file: LandingFile) -> Indexed | None:
        return self.versions.get((file.name, file.fingerprint))


def landing_folder(lake: Lake, use_case: UseCase) -> str:
    """Folder or URL that relative globs start from, with a slash at its end."""
    return f"{lake.settings.landing_uri.rstrip('/')}/{use_case.name}/"


def landing_glob(lake: Lake, use_case: UseCase, source: str) -> str:
    """The glob of a source, absolute."""
    files = use_case.sources[source].files
    absolute = "://" in files or files.startswith("/")
    return files if absolute else landing_folder(lake, use_case) + files


def list_files(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
) -> list[LandingFile]:
    """Files that are in the landing folder now, oldest first; later ones correct earlier ones.

    Raises LandingError where the folder or object store cannot be listed.
    """
    glob = landing_glob(lake, use_case, source)
    contract = digest(
        use_case.sources[source].model_dump(mode="json", exclude={"description"}),
        use_case.partitions.model_dump(mode="json"),
    )
    folder = landing_folder(lake, use_case)
    try:
        found = _list_url(cursor, glob) if "://" in glob else _list_local(cursor, glob)
    except (duckdb.Error, OSError) as error:
        raise LandingError(
            f"{use_case.name}/{source}: {glob} cannot be listed: {first_line(error)}"
        ) from error
    files = [
        LandingFile(
            path.removeprefix(folder), path, size, at, digest(size, at.isoformat(), contract)
        )
        for path, size, at in found
    ]
    return sorted(files, key=lambda file: (file.modified_at, file.name))


def read_index(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
) -> LandingIndex:
    """Everything `landings` knows of a source."""
    table = landings_table(use_case)
    try:
        relation = lake.relation(cursor, table.schema, table.name)
    except TableNotFound:
        return LandingIndex()
    rows = cursor.execute(
        f"""SELECT file, fingerprint, max(modified_at),
            list(DISTINCT window_start) FILTER (window_start IS NOT NULL), max(error)
        FROM {relation} WHERE source = ? GROUP BY file, fingerprint""",
        [source],
    ).fetchall()
    modified_at: dict[str, datetime] = {}
    for name, _, at, _, _ in rows:
        modified_at[name] = max(at, modified_at.get(name, at))
    return LandingIndex(
        {(n, f): Indexed(frozenset(starts or ()), error) for n, f, _, starts, error in rows},
        modified_at,
    )


def create_notes(cursor: duckdb.DuckDBPyConnection, use_case: UseCase) -> None:
    """An empty temporary table to note what is found; `write_notes` moves it to the lake."""
    columns = landings_table(use_case).columns
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE __landings "
        f"({', '.join(f'{quote(c)} {kind}' for c, kind in columns.items())})"
    )


def note(
    cursor: duckdb.DuckDBPyConnection, source: str, file: LandingFile, error: str | None
) -> None:
    """Note a file that has no row, or that was refused."""
    values = [source, file.name, file.fingerprint, file.size, file.modified_at, error]
    cursor.execute(
        f"INSERT INTO {LANDINGS} (source, file, fingerprint, size, modified_at, rows, error) "
        "VALUES (?, ?, ?, ?, ?, 0, ?)",
        values,
    )


def write_notes(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, commit: Commit
) -> None:
    """Move what was noted into `landings`, if anything was."""
    noted = cursor.execute(f"SELECT count(*) FROM {LANDINGS}").fetchone()
    if not noted or not noted[0]:
        return
    table = landings_table(use_case)
    names = ", ".join(quote(column) for column in table.columns)

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        evolve(transaction, table, partitioned=False)
        transaction.execute(
            f"INSERT INTO {table.sql} ({names}) SELECT {names} FROM {LANDINGS} ORDER BY ALL"
        )

    lake.transact(cursor, commit, work)


def chunks(files: Sequence[LandingFile], most_bytes: int) -> list[list[LandingFile]]:
    """Cut a list so that no part, single files aside, is larger than so many bytes."""
    parts: list[list[LandingFile]] = []
    size = 0
    for file in files:
        if not parts or size + file.size > most_bytes:
            parts.append([])
            size = 0
        parts[-1].append(file)
        size += file.size
    return parts


def exact_path(file: LandingFile) -> str:
    """A path that DuckDB does not read as a glob."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in file.path)


def first_line(error: Exception) -> str:
    """What an error says, without the hints and the query below it."""
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def _list_url(cursor: duckdb.DuckDBPyConnection, glob: str) -> list[tuple[str, int, datetime]]:
    # Without `content` among the columns nothing is downloaded.
    return cursor.execute(
        "SELECT filename, size, last_modified FROM read_blob(?)", [glob]
    ).fetchall()


def _list_local(cursor: duckdb.DuckDBPyConnection, glob: str) -> list[tuple[str, int, datetime]]:
    # DuckDB tells whole seconds, in which a file can be replaced by another one of its size.
    found = []
    for (path,) in cursor.execute("SELECT file FROM glob(?)", [glob]).fetchall():
        try:
            status = os.stat(path)
        except FileNotFoundError:
            # Archived since it was listed, or a link to nowhere.
            continue
        at = datetime.fromtimestamp(status.st_mtime_ns // 1000 / 1e6, UTC)
        found.append((path, status.st_size, at))
    return found
