"""What is known of landing files: their versions by content, and the windows they have rows of."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.sources.listing import ListedFile, contract_of
from ml_platform.sources.opening import open_file
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import exact_path, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, insert, keep_few_files
from ml_platform.storage.changes import Range

LANDINGS = "temp.__landings"
GONE = "gone-"
"""Fingerprint of a file that is gone, where its rows go with it: a version without any."""


@dataclass(frozen=True)
class LandingFile(ListedFile):
    """One version of one landing file."""

    modified_us: int
    """When it came to hold what it holds; a file that is only touched keeps its place in line."""
    fingerprint: str
    """Changes with the content of the file, and with what its source declares."""

    @property
    def is_gone(self) -> bool:
        return self.fingerprint == GONE


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
    stats: Mapping[tuple[str, int, int], tuple[str, int]] = field(default_factory=dict)
    """Fingerprint and time of modification by what a listing shows of a file."""
    newest: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    """Fingerprint and time of modification of the version of each file that was written last."""

    @property
    def sizes(self) -> dict[tuple[str, str], int]:
        """Bytes of each version, by name and fingerprint."""
        return {
            (name, fingerprint): size for (name, size, _), (fingerprint, _) in self.stats.items()
        }

    def of(self, file: LandingFile) -> Indexed | None:
        return self.versions.get((file.name, file.fingerprint))

    def knows(self, file: ListedFile) -> bool:
        """Whether this very writing of the file was seen before."""
        return file.stat in self.stats


def identify(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    listed: Sequence[ListedFile],
    index: LandingIndex,
) -> list[LandingFile]:
    """The versions of files, oldest first; later ones correct earlier ones.

    Only what was written since the last look is read. A file that cannot be read counts as
    another version with each writing.
    """
    contract = contract_of(use_case, source)
    files = [_identified(cursor, file, contract, index) for file in listed]
    return sorted(files, key=lambda file: (file.modified_us, file.name))


def _identified(
    cursor: duckdb.DuckDBPyConnection, file: ListedFile, contract: str, index: LandingIndex
) -> LandingFile:
    known = index.stats.get(file.stat) if file.content is None else None
    content = file.content or (known[0].split("-")[0] if known else _digest(cursor, file))
    fingerprint = f"{content}-{contract}"
    if known:
        modified_us = known[1]
    else:
        before, at = index.newest.get(file.name, ("", file.written_us))
        modified_us = at if before.split("-")[0] == content else file.written_us
        if before == GONE:
            # It came back, whenever it was written.
            modified_us = max(modified_us, at + 1)
    return LandingFile(
        file.name,
        file.path,
        file.size,
        file.written_us,
        modified_us,
        fingerprint,
        problem=file.problem,
        content=file.content,
    )


def _digest(cursor: duckdb.DuckDBPyConnection, file: ListedFile) -> str:
    if file.problem is not None:
        return hashlib.sha256(f"{file.written_us} {file.problem}".encode()).hexdigest()[:20]
    try:
        if file.is_remote:
            row = cursor.execute(
                "SELECT sha256(content) FROM read_blob(?)", [exact_path(file.path)]
            ).fetchone()
            return str(row[0])[:20] if row else ""
        with open_file(file.path) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()[:20]
    except (OSError, duckdb.Error):
        # Reading it says why, and refuses it.
        return hashlib.sha256(str(file.written_us).encode()).hexdigest()[:20]


def read_index(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    wanted: Range | None = None,
) -> LandingIndex:
    """Everything `landings` knows of a source.

    wanted: the windows to return of each file, as one may have very many; by default all.
    """
    table = landings_table(use_case)
    try:
        relation = lake.relation(cursor, table.schema, table.name)
    except TableNotFound:
        return LandingIndex()
    wanted_windows = wanted.holds("window_start") if wanted else "window_start IS NOT NULL"
    rows = cursor.execute(
        f"""SELECT file, fingerprint, size, epoch_us(written_at), min(epoch_us(modified_at)),
            list(DISTINCT window_start) FILTER ({wanted_windows}), max(error)
        FROM {relation} WHERE source = ? GROUP BY ALL ORDER BY 4""",
        [source],
    ).fetchall()
    versions: dict[tuple[str, str], Indexed] = {}
    for name, fingerprint, _, _, _, starts, error in rows:
        before = versions.get((name, fingerprint), Indexed())
        versions[name, fingerprint] = Indexed(
            before.window_starts | frozenset(starts or ()), before.error or error
        )
    return LandingIndex(
        versions,
        {
            (name, size, at): (fingerprint, modified)
            for name, fingerprint, size, at, modified, _, _ in rows
        },
        {name: (fingerprint, modified) for name, fingerprint, _, _, modified, _, _ in rows},
    )


def create_notes(cursor: duckdb.DuckDBPyConnection, use_case: UseCase) -> None:
    """An empty temporary table to note what is found; `write_notes` moves it to the lake."""
    columns = landings_table(use_case).columns
    cursor.execute(
        f"CREATE OR REPLACE TEMP TABLE __landings "
        f"({', '.join(f'{quote(c)} {kind}' for c, kind in columns.items())})"
    )


def note(
    cursor: duckdb.DuckDBPyConnection, source: str, file: LandingFile, error: str | None = None
) -> None:
    """Note a file that has no row, that was refused, or that was written again unchanged."""
    values = [
        source, file.name, file.fingerprint, file.size, file.modified_us, file.written_us, error
    ]  # fmt: skip
    cursor.execute(
        f"INSERT INTO {LANDINGS} "
        "(source, file, fingerprint, size, modified_at, written_at, rows, error) "
        "VALUES (?, ?, ?, ?, make_timestamptz(?), make_timestamptz(?), 0, ?)",
        values,
    )


def write_notes(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, commit: Commit
) -> None:
    """Move what was noted into `landings`, unless another process has noted it meanwhile."""
    table = landings_table(use_case)

    def work(transaction: duckdb.DuckDBPyConnection) -> bool:
        if table.name in lake.tables(transaction, table.schema):
            same = " AND ".join(
                f"n.{column} = k.{column}"
                for column in ("source", "file", "fingerprint", "size", "written_at")
            )
            transaction.execute(
                f"DELETE FROM {LANDINGS} n USING {table.sql} k WHERE {same} "
                f"AND n.window_start IS NOT DISTINCT FROM k.window_start"
            )
        if not _count(transaction):
            return False
        insert(transaction, table, f"FROM {LANDINGS}")
        return True

    if _count(cursor) and lake.transact(cursor, commit, work):
        keep_few_files(lake, cursor, table, commit)


def _count(cursor: duckdb.DuckDBPyConnection) -> int:
    row = cursor.execute(f"SELECT count(*) FROM {LANDINGS}").fetchone()
    return int(row[0]) if row else 0


def is_touched(file: LandingFile, index: LandingIndex) -> bool:
    """Whether a file was written again with the same content since it was looked at."""
    is_known = index.of(file) is not None and not index.knows(file)
    return is_known and file.content is None and not file.is_gone


def rewritten_files(index: LandingIndex) -> frozenset[str]:
    """Names of files that were seen with several contents."""
    fingerprints: dict[str, str] = {}
    return frozenset(
        name
        for name, fingerprint in index.versions
        if fingerprints.setdefault(name, fingerprint.split("-")[0]) != fingerprint.split("-")[0]
    )


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
