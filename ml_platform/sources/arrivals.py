"""Which windows have landing files that nobody asked to ingest yet."""

from dataclasses import dataclass
from datetime import UTC

from ml_platform.sources.intake import number_files, take_in
from ml_platform.sources.landing import create_notes, list_files, read_index, write_notes
from ml_platform.sources.tables import landings_table
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.tables import WINDOW_START


@dataclass(frozen=True)
class Arrivals:
    """What landed for one source between two snapshots of the lake."""

    windows: tuple[Window, ...]
    """Windows that new versions of files have rows of, in order."""
    snapshot: int
    """Where to go on from the next time."""


def arrivals(
    lake: Lake, use_case: UseCase, source: str, since: int | None, commit: Commit
) -> Arrivals:
    """Look at files that were not looked at yet, and say which windows they have rows of.

    since: snapshot of the last call. Without it, the windows of all files that have no row in the
    source yet. Raises LandingError where landing cannot be listed.
    """
    with lake.cursor(use_case.timezone) as cursor:
        files = list_files(lake, cursor, use_case, source)
        index = read_index(lake, cursor, use_case, source)
        unknown = [file for file in files if index.of(file) is None]
        if unknown:
            number_files(cursor, files, index, set())
            create_notes(cursor, use_case)
            first = use_case.calendar.window_at(use_case.calendar.start)
            take_in(cursor, use_case, source, unknown, index, first)
            write_notes(lake, cursor, use_case, commit)
        snapshot = lake.snapshot(cursor)
        tables = lake.tables(cursor, use_case.name)
        if "landings" not in tables or since == snapshot:
            return Arrivals((), snapshot)
        where = f"source = {literal(source)} AND {WINDOW_START} IS NOT NULL"
        if since is None and source in tables:
            stored = lake.relation(cursor, use_case.name, source)
            where += f" AND {WINDOW_START} NOT IN (SELECT DISTINCT {WINDOW_START} FROM {stored})"
        notes = _noted_since(use_case, since or 0, snapshot)
        rows = cursor.execute(
            f"SELECT DISTINCT {WINDOW_START} FROM {notes} WHERE {where} ORDER BY 1"
        ).fetchall()
    windows = (use_case.calendar.window_at(start.replace(tzinfo=UTC)) for (start,) in rows)
    return Arrivals(tuple(windows), snapshot)


def _noted_since(use_case: UseCase, since: int, snapshot: int) -> str:
    table = landings_table(use_case)
    return (
        f"ducklake_table_insertions('lake', {literal(table.schema)}, {literal(table.name)}, "
        f"{since + 1}, {snapshot})"
    )
