"""Ingest what has landed: rows that keep the contract into the source, the others to quarantine."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import duckdb

from ml_platform.errors import FileRefused, LandingError, PlatformError
from ml_platform.sources.corrections import StoredRows, mark_superseded
from ml_platform.sources.gone import gone_files, note_gone
from ml_platform.sources.ingest_report import IngestReport, report_on
from ml_platform.sources.ingestions import IngestedFile, held_files, held_states, remember
from ml_platform.sources.intake import number_files, take_in
from ml_platform.sources.landed import look_at_landing, require_files
from ml_platform.sources.landing import (
    LandingFile,
    LandingIndex,
    create_notes,
    identify,
    is_touched,
    note,
    read_index,
    rewritten_files,
    write_notes,
)
from ml_platform.sources.listing import landing_folder
from ml_platform.sources.partial_files import unfinished
from ml_platform.sources.step_tables import FILES, ROWS
from ml_platform.sources.table_rows import SourceTable
from ml_platform.sources.tables import ingestions_table, quarantine_table, source_table
from ml_platform.sources.versions import Before, versions_replacement
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import LOGGED_SOURCES, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Replacement,
    Written,
    compute_windows,
    keep_few_files,
    replace_together,
)
from ml_platform.storage.changes import Range
from ml_platform.storage.memory import is_out_of_memory
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class RowsOf:
    """Judged rows as SQL, and what names the file of each."""

    relation: str
    file: str


OF_FILES = RowsOf(f"{ROWS} r JOIN {FILES} f ON f.number = r.__file", "f.name")


def ingest(
    lake: Lake,
    use_case: UseCase,
    source: str,
    window_range: Window,
    commit: Commit,
    *,
    now: datetime | None = None,
    rewrite: bool = False,
) -> IngestReport:
    """Make the windows of a range hold what has landed for them, in one transaction.

    Every row of a landing file ends up in the source's table or, with a reason, in `quarantine`.
    Rows whose file is gone from landing, or has become unreadable, stay. A file that cannot be
    read is refused alone and looked at again once it changes.
    now: leave files that were not whole yet at this moment; by default they are taken as they are.
    rewrite: what lands now corrects the past itself, as where the source says `corrections:
    rewrite`; otherwise a corrected row is known once it has arrived.

    Raises LandingError where no file has ever landed, landing cannot be listed or a table cannot be
    read, LakeError where its database cannot be opened.
    """
    is_table = bool(use_case.sources[source].rows_of)
    corrections = "rewrite" if rewrite else use_case.sources[source].corrections

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> IngestReport:
        if is_table:
            return _ingest_table(
                lake, cursor, use_case, source, window_range, commit, basis, corrections
            )
        return _ingest_files(
            lake, cursor, use_case, source, window_range, commit, basis, corrections, now
        )

    computed = partial(compute_windows, lake, use_case, source, window_range, commit, compute)
    if not is_table:
        return computed()
    try:
        with lake.memory.lowered():
            return computed()
    except PlatformError as error:
        if not is_out_of_memory(error):
            raise
    # Some rows are too large for that.
    return computed()


def _ingest_files(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    window_range: Window,
    commit: Commit,
    basis: Basis,
    corrections: str,
    now: datetime | None,
) -> IngestReport:
    starts = {naive_utc(w.start) for w in use_case.calendar.windows(window_range)}
    index = read_index(lake, cursor, use_case, source, Range.of(starts))
    # Listed after the basis was taken: whoever ingested a file that is not listed came later.
    landed = look_at_landing(lake, cursor, use_case, source)
    listed = list(landed.files)
    require_files(landed, index, use_case, source)
    gone = gone_files(use_case, source, listed, index, landed.since_us(now or datetime.now(UTC)))
    if now is not None:
        fresh = [file for file in listed if not index.knows(file)]
        left = unfinished(lake.settings, use_case.sources[source], fresh, now)
        listed = [file for file in listed if file.name not in left]
    present = identify(cursor, use_case, source, listed, index)
    # What the service writes need not be there: perhaps nobody has asked it yet.
    files = use_case.sources[source].files
    if files and not present and not index.versions and source not in LOGGED_SOURCES:
        raise LandingError(
            f"{use_case.name}/{source}: no file matches '{files}' in "
            f"{landing_folder(lake, use_case)}; land one there, or correct "
            f"`sources.{source}.files` or the landing folder"
        )
    stored = StoredRows(lake, cursor, use_case, source, window_range)
    stored_files = stored.files()
    number_files(
        cursor, [*present, *(f for f in gone if f.name in stored_files)], index, stored_files
    )
    create_notes(cursor, use_case)
    for file in present:
        if is_touched(file, index):
            note(cursor, source, file)
    note_gone(lake, cursor, use_case, source, [f for f in gone if index.of(f) is None])
    wanted = [file for file in present if _is_wanted(file, index, starts)]
    columns, size = len(use_case.sources[source].columns), sum(file.size for file in wanted)
    with lake.threads.suited(columns, lambda: size):
        taken = take_in(cursor, use_case, source, wanted, index, window_range, landed.table)
    write_notes(lake, cursor, use_case, commit)
    refused = {
        **{f.name: FileRefused(f.name, e) for f in present if (e := _known_error(f, index))},
        **taken.refused,
    }
    read = {file.name for file in present if file.name not in refused}
    stored.keep(stored_files - read - {file.name for file in gone})
    counted = _count_landed(cursor)
    files_read = _count_files(cursor, present)
    superseded = mark_superseded(cursor, use_case.sources[source])
    whole = [*(file for file in present if file.name not in refused), *gone]
    held = held_files(lake, cursor, use_case, source, whole, starts, corrections)
    before = Before(
        stored.tables,
        corrects_nothing=not stored_files and not superseded,
        may_have_moved=bool(gone) or _are_written_anew(held, index),
        left=frozenset(file.name for file in gone) | rewritten_files(index),
    )
    rows, quarantined = _write(
        lake, cursor, use_case, source, window_range, commit, basis, held, before
    )
    return report_on(
        use_case,
        window_range,
        lake.snapshot(cursor),
        counted,
        rows,
        quarantined,
        refused=tuple(refused[name] for name in sorted(refused)),
        ignored_columns=taken.ignored_columns,
        files=files_read,
    )


def _ingest_table(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    window_range: Window,
    commit: Commit,
    basis: Basis,
    corrections: str,
) -> IngestReport:
    before = Before(lake.tables(cursor, use_case.name))
    table = SourceTable(lake, cursor, use_case, source)
    states = table.take_in(window_range)
    use_case = table.columns.use_case
    landed = _count_landed(cursor)
    superseded = mark_superseded(cursor, use_case.sources[source])
    held = held_states(lake, cursor, use_case, source, states, corrections)
    if source not in before.tables:
        before = replace(before, corrects_nothing=not superseded, may_have_moved=False)
    rows, quarantined = _write(
        lake,
        cursor,
        use_case,
        source,
        window_range,
        commit,
        basis,
        held,
        before,
        RowsOf(f"{ROWS} r", table.file_sql("r.__file")),
    )
    return report_on(
        use_case,
        window_range,
        lake.snapshot(cursor),
        landed,
        rows,
        quarantined,
        ignored_columns=table.columns.ignored,
    )


def _is_wanted(file: LandingFile, index: LandingIndex, starts: Set[datetime]) -> bool:
    known = index.of(file)
    return known is None or not known.window_starts.isdisjoint(starts)


def _are_written_anew(held: Sequence[IngestedFile], index: LandingIndex) -> bool:
    """Whether a file that is new in a window was seen before with another content."""
    news = {each.file: each.fingerprint for each in held if each.corrections}
    return any(news.get(name, print_) != print_ for name, print_ in index.versions)


def _known_error(file: LandingFile, index: LandingIndex) -> str | None:
    known = index.of(file)
    return known.error if known else None


def _count_landed(cursor: duckdb.DuckDBPyConnection) -> dict[datetime, int]:
    rows = cursor.execute(f"SELECT {WINDOW_START}, count(*) FROM {ROWS} GROUP BY 1").fetchall()
    return dict(rows)


def _count_files(cursor: duckdb.DuckDBPyConnection, present: list[LandingFile]) -> int:
    rows = cursor.execute(
        f"""SELECT DISTINCT f.name FROM {ROWS} r JOIN {FILES} f ON f.number = r.__file
        WHERE f.path IS NOT NULL"""
    ).fetchall()
    return len({name for (name,) in rows} & {file.name for file in present})


def _write(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    window_range: Window,
    commit: Commit,
    basis: Basis,
    held: Sequence[IngestedFile],
    before: Before,
    rows_of: RowsOf = OF_FILES,
) -> tuple[Written, Written]:
    table = source_table(use_case, source)
    of_file = f"{rows_of.file} AS _file, r.__row AS _row"
    start = f"r.{WINDOW_START} AS __start"
    columns = ", ".join(
        f"r.{quote(column)}" for column in table.columns if column not in {"_file", "_row"}
    )
    rows = Replacement(
        table,
        f"SELECT {columns}, {of_file}, {start} FROM {rows_of.relation} WHERE r.__reason IS NULL",
        time="__start",
        is_placed=True,
        is_unique=True,
    )
    quarantined = Replacement(
        quarantine_table(use_case),
        f"""SELECT {literal(source)} AS source, r.__reason AS reason, {of_file},
            r.__record AS record, {start} FROM {rows_of.relation} WHERE r.__reason IS NOT NULL""",
        time="__start",
        is_placed=True,
        is_unique=True,
        only={"source": source},
    )
    versions = versions_replacement(cursor, use_case, source, window_range, held, before)
    written = replace_together(
        lake,
        cursor,
        [rows, quarantined, *([versions] if versions else [])],
        calendar=use_case.calendar,
        window_range=window_range,
        commit=commit,
        basis=basis,
        alongside=lambda transaction, number: remember(transaction, use_case, held, number),
    )
    keep_few_files(lake, cursor, ingestions_table(use_case), commit)
    return written[0], written[1]
