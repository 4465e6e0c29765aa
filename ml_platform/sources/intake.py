"""From landing files to judged rows, each in its window."""

import os
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import duckdb

from ml_platform.errors import FileRefused
from ml_platform.sources import landing
from ml_platform.sources.contract import Contract, instant, times_alone
from ml_platform.sources.csv_files import read_csv_files
from ml_platform.sources.json_lines import read_json_lines
from ml_platform.sources.landing import LandingFile, LandingIndex
from ml_platform.sources.parquet_files import read_parquet_files
from ml_platform.sources.reading import Batch, Reading
from ml_platform.sources.shared_tables import SharedTable
from ml_platform.sources.step_tables import ELSEWHERE, FILES, JUDGED, ROWS
from ml_platform.spec.inputs import Source
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Calendar, Window
from ml_platform.storage.tables import naive_utc

CHUNK_BYTES = 512 * 2**20
"""Files are judged so many bytes at a time; only rows of the range are kept of each chunk."""


@dataclass(frozen=True)
class IntakeResult:
    """What taking files in came to, besides `ROWS`."""

    refused: dict[str, FileRefused]
    """By name of the file."""
    ignored_columns: tuple[str, ...]


def number_files(
    cursor: duckdb.DuckDBPyConnection,
    present: Sequence[LandingFile],
    index: LandingIndex,
    stored: Set[str],
) -> None:
    """Number all files that rows may come from in `FILES`, the oldest first.

    stored: names of files that the lake has rows of; they need not be there any more.
    """
    names = {file.name for file in present}
    # Where rows are gone with their files, none of theirs is newer than another.
    files = [(not file.is_gone, file.modified_us, file.name, file) for file in present]
    gone = [(True, index.newest.get(n, ("", 0))[1], n, None) for n in stored - names]
    ordered = sorted([*files, *gone], key=lambda item: item[:3])
    known = [file for *_, file in ordered]
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE {FILES} AS SELECT
            unnest(range(len(?::VARCHAR[])))::INTEGER AS number, unnest(?::VARCHAR[]) AS name,
            unnest(?::VARCHAR[]) AS path, unnest(?::VARCHAR[]) AS fingerprint,
            unnest(?::BIGINT[]) AS size, make_timestamptz(unnest(?::BIGINT[])) AS modified_at,
            make_timestamptz(unnest(?::BIGINT[])) AS written_at""",
        [
            [name for *_, name, _ in ordered],
            [name for *_, name, _ in ordered],
            [file and (_as_text(file.path) or None) for file in known],
            [file and file.fingerprint for file in known],
            [file and file.size for file in known],
            [file and file.modified_us for file in known],
            [file and file.written_us for file in known],
        ],
    )


def _as_text(path: str) -> str:
    # A name that is not UTF-8 is no text for DuckDB, and is never opened.
    return os.fsencode(path).decode(errors="backslashreplace")


def take_in(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    files: Sequence[LandingFile],
    index: LandingIndex,
    window_range: Window,
    table: SharedTable | None = None,
) -> IntakeResult:
    """Judge every row of the files; keep those of the range in `ROWS`.

    File versions that the index does not know are noted for `landings`.
    table: that the files are of, where they are no landing files.
    """
    declared = use_case.sources[source]
    contract = Contract(cursor, declared, use_case.calendar.start)
    create_rows(cursor, contract)
    rewritten = _rewritten(files, index)
    refused: dict[str, FileRefused] = {}
    ignored: dict[str, None] = {}
    for chunk in landing.chunks(files, CHUNK_BYTES):
        reading = Reading(cursor, declared)
        _judge(reading, contract.judged, chunk, table)
        _refuse_timeless(reading, [file for file in chunk if file not in reading.changed])
        _mark_duplicates(cursor, declared)
        _place(cursor, use_case.calendar)
        _note(cursor, source, chunk, reading, index)
        _keep(cursor, use_case.calendar, window_range)
        _keep_elsewhere(cursor, declared, use_case.calendar, window_range, rewritten)
        refused.update({file.name: error for file, error in reading.refused.items()})
        ignored.update(reading.ignored)
    return IntakeResult(refused, tuple(ignored))


def look_into(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    source: str,
    files: Sequence[LandingFile],
    index: LandingIndex,
    table: SharedTable | None = None,
) -> None:
    """Note for `landings` in which windows files have rows, as `take_in` does.

    Of each row only its event time is looked at, which costs little however many columns there are.
    """
    declared, calendar = use_case.sources[source], use_case.calendar
    contract = Contract(cursor, times_alone(declared), calendar.start)
    create_rows(cursor, contract)
    timeless: list[LandingFile] = []
    for chunk in landing.chunks(files, CHUNK_BYTES):
        reading = Reading(cursor, declared)
        _judge(reading, lambda batch: contract.judged(replace(batch, record="NULL")), chunk, table)
        without = {name for name, *_ in _timeless(cursor)}
        timeless += [file for file in chunk if file.name in without]
        _place(cursor, calendar)
        _note(cursor, source, [f for f in chunk if f.name not in without], reading, index)
    if timeless:
        # Why none of their rows has a time is said with all else that is wrong with the first one.
        first = calendar.window_at(calendar.start)
        take_in(cursor, use_case, source, timeless, index, first, table)


def _judge(
    reading: Reading,
    judged: Callable[[Batch], str],
    files: list[LandingFile],
    table: SharedTable | None,
) -> None:
    """Replace what is in `JUDGED` by the rows of files; judged: SQL of those of a batch."""
    reading.cursor.execute(f"DELETE FROM {JUDGED}")
    for batch in batches(reading, files, table):
        reading.cursor.execute(f"INSERT INTO {JUDGED} {judged(batch)}")
    reading.check_unchanged(files)
    _drop_changed(reading)


def row_record(source: Source) -> str:
    """SQL of a typed row as JSON text."""
    pairs = ", ".join(f"{literal(column)}, {quote(column)}" for column in source.columns)
    return f"json_object({pairs})"


def create_rows(cursor: duckdb.DuckDBPyConnection, contract: Contract) -> None:
    """Empty `JUDGED`, `ROWS`, and `ELSEWHERE` with keys outside a range."""
    columns = ", ".join(f"{quote(name)} {kind}" for name, kind in contract.columns.items())
    judged = (
        f"__file BIGINT, __row BIGINT, {columns}, "
        "__event TIMESTAMPTZ, __reason VARCHAR, __record VARCHAR"
    )
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {JUDGED} ({judged})")
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {ROWS} ({judged}, window_start TIMESTAMP)")
    kept = f"__file BIGINT, {columns}, window_start TIMESTAMP"
    cursor.execute(f"CREATE OR REPLACE TEMP TABLE {ELSEWHERE} ({kept})")


def batches(
    reading: Reading, files: list[LandingFile], table: SharedTable | None
) -> Iterator[Batch]:
    """Raw rows of files, which `FILES` numbers; those that cannot be read are refused."""
    if table is not None:
        yield from table.read(reading, files)
        return
    filled = [file for file in files if file.size and file.problem is None]
    for file in files:
        if file.problem is not None:
            reading.refuse(file, file.problem)
        elif not file.size:
            reading.refuse(file, "is empty")
    match reading.source.file_format:
        case "csv":
            yield from read_csv_files(reading, filled)
        case "parquet":
            yield from read_parquet_files(reading, filled)
        case _:
            yield from read_json_lines(reading, filled)


def _drop_changed(reading: Reading) -> None:
    paths = [file.path for file in reading.changed]
    reading.cursor.execute(
        f"""DELETE FROM {JUDGED} WHERE __file IN
        (SELECT number FROM {FILES} WHERE path IN (SELECT unnest(?::VARCHAR[])))""",
        [paths],
    )


def _refuse_timeless(reading: Reading, files: list[LandingFile]) -> None:
    by_name = {file.name: file for file in files}
    event = reading.source.event_time
    for name, number, rows, reason in _timeless(reading.cursor):
        counted = f"its {rows} rows" if rows > 1 else "its rows"
        reading.refuse(
            by_name[name], f"none of {counted} has a readable {event}; the first one: {reason}"
        )
        reading.cursor.execute(f"DELETE FROM {JUDGED} WHERE __file = ?", [number])


def _timeless(cursor: duckdb.DuckDBPyConnection) -> list[tuple[str, int, int, str]]:
    """Files without any readable event time: name, number, rows, and why the first row has none."""
    return cursor.execute(
        f"""SELECT f.name, j.__file, count(*), arg_min(j.__reason, j.__row)
        FROM {JUDGED} j JOIN {FILES} f ON f.number = j.__file
        GROUP BY f.name, j.__file HAVING count(j.__event) = 0"""
    ).fetchall()


def _mark_duplicates(cursor: duckdb.DuckDBPyConnection, source: Source) -> None:
    keys = ", ".join(quote(column) for column in source.key)
    # Most files have none: find the keys first, rank only their rows.
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __twice AS SELECT __file, {keys}
        FROM {JUDGED} WHERE __reason IS NULL GROUP BY ALL HAVING count(*) > 1"""
    )
    if not cursor.execute("FROM temp.__twice LIMIT 1").fetchall():
        return
    named = ", ".join(source.key)
    cursor.execute(
        f"""UPDATE {JUDGED} j SET __record = {row_record(source)},
            __reason = {literal(f"duplicate key ({named}): row ")} || d.__first || ' came first'
        FROM (SELECT __file AS __of, __row AS __at, first_value(__row) OVER same AS __first
            FROM {JUDGED} JOIN temp.__twice USING (__file, {keys}) WHERE __reason IS NULL
            WINDOW same AS (PARTITION BY __file, {keys} ORDER BY __row)
            QUALIFY row_number() OVER same > 1) d
        WHERE j.__file = d.__of AND j.__row = d.__at"""
    )


def _place(cursor: duckdb.DuckDBPyConnection, calendar: Calendar) -> None:
    # The calendar decides the window of a row, not SQL; it is asked for each day with events.
    begins = instant(calendar.start)
    days = cursor.execute(
        f"""SELECT DISTINCT CAST(timezone('UTC', greatest(__event, {begins})) AS DATE)
        FROM {JUDGED} WHERE __event IS NOT NULL"""
    ).fetchall()
    starts: set[datetime] = set()
    for (day,) in days:
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        around = Window(midnight, midnight + timedelta(days=1))
        starts.update(naive_utc(window.start) for window in calendar.windows(around))
    cursor.execute(
        "CREATE OR REPLACE TEMP TABLE __begins AS SELECT unnest(?::TIMESTAMP[]) AS window_start",
        [sorted(starts)],
    )
    # What is before the first window counts there; where no time can be read, the first readable
    # row of the file decides.
    cursor.execute(
        f"""CREATE OR REPLACE TEMP TABLE __placed AS
        SELECT j.rowid AS __id, j.__file, j.__row, j.__event, s.window_start
        FROM {JUDGED} j ASOF LEFT JOIN temp.__begins s
        ON timezone('UTC', CASE WHEN j.__event IS NOT NULL THEN greatest(j.__event, {begins}) END)
            >= s.window_start"""
    )
    cursor.execute(
        """CREATE OR REPLACE TEMP TABLE __firsts AS
        SELECT __file, arg_min(window_start, __row) AS first
        FROM temp.__placed WHERE window_start IS NOT NULL GROUP BY __file"""
    )


def _note(
    cursor: duckdb.DuckDBPyConnection,
    source: str,
    files: list[LandingFile],
    reading: Reading,
    index: LandingIndex,
) -> None:
    unknown = [file for file in files if index.of(file) is None]
    cursor.execute(
        f"""INSERT INTO {landing.LANDINGS}
        SELECT ?, f.name, f.fingerprint, f.size, f.modified_at, f.written_at,
            coalesce(p.window_start, s.first) AS start, count(*), min(__event), max(__event), NULL
        FROM temp.__placed p JOIN temp.__firsts s USING (__file)
        JOIN {FILES} f ON f.number = p.__file
        WHERE f.name IN (SELECT unnest(?::VARCHAR[]))
        GROUP BY ALL""",
        [source, [file.name for file in unknown]],
    )
    rows = cursor.execute(f"SELECT DISTINCT file FROM {landing.LANDINGS}").fetchall()
    noted = {name for (name,) in rows}
    for file in unknown:
        # One that changed is looked at again: what was seen of it is no version of it.
        if file.name not in noted and file not in reading.changed:
            error = reading.refused.get(file)
            landing.note(cursor, source, file, error.problem if error else None)


def _keep(cursor: duckdb.DuckDBPyConnection, calendar: Calendar, window_range: Window) -> None:
    windows = list(calendar.windows(window_range))
    cursor.execute(
        f"""INSERT INTO {ROWS}
        SELECT j.*, coalesce(p.window_start, s.first) AS start FROM {JUDGED} j
        JOIN temp.__placed p ON p.__id = j.rowid JOIN temp.__firsts s ON s.__file = p.__file
        WHERE coalesce(p.window_start, s.first) BETWEEN ? AND ?""",
        [naive_utc(windows[0].start), naive_utc(windows[-1].start)],
    )


def _keep_elsewhere(
    cursor: duckdb.DuckDBPyConnection,
    source: Source,
    calendar: Calendar,
    window_range: Window,
    rewritten: Sequence[str],
) -> None:
    """Keep the keys that rewritten files have outside of the range: rows may have moved there."""
    if not rewritten:
        return
    windows = list(calendar.windows(window_range))
    key = ", ".join(f"j.{quote(column)}" for column in source.key)
    cursor.execute(
        f"""INSERT INTO {ELSEWHERE} BY NAME
        SELECT j.__file, {key}, p.window_start
        FROM {JUDGED} j JOIN temp.__placed p ON p.__id = j.rowid
        WHERE j.__reason IS NULL AND p.window_start NOT BETWEEN ? AND ? AND j.__file IN
        (SELECT number FROM {FILES} WHERE name IN (SELECT unnest(?::VARCHAR[])))""",
        [naive_utc(windows[0].start), naive_utc(windows[-1].start), list(rewritten)],
    )


def _rewritten(files: Sequence[LandingFile], index: LandingIndex) -> list[str]:
    """Names of the files that held something else before."""
    held: dict[str, set[str]] = {}
    for name, fingerprint in index.versions:
        held.setdefault(name, set()).add(fingerprint)
    return [file.name for file in files if held.get(file.name, set()) - {file.fingerprint}]
