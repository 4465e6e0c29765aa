"""A landed file as the subject of an impact."""

from datetime import datetime

import duckdb

from ml_platform.errors import SubjectNotFound, TableNotFound
from ml_platform.impact.subjects import SourceSpan, Subject, arrivals
from ml_platform.sources.known import KnownVersions
from ml_platform.sources.tables import landings_table, quarantine_table
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import KNOWN_FROM, UseCase
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range
from ml_platform.storage.tables import WINDOW_START


def landed_file(lake: Lake, use_case: UseCase, name: str, source: str | None = None) -> Subject:
    """A landed file, by the name that rows of sources have in `_file`.

    source: where several sources read it. Raises SubjectNotFound where no such file has landed.
    """
    with lake.cursor(use_case.timezone) as cursor:
        source = _source_of(cursor, lake, use_case, name, source)
        landings = landings_table(use_case)
        noted = cursor.execute(
            f"""SELECT {WINDOW_START}, max(rows), max(error)
            FROM {landings.sql} WHERE source = ? AND file = ? GROUP BY 1 ORDER BY 1""",
            [source, name],
        ).fetchall()
        landed = {start: rows for start, rows, _ in noted if start is not None}
        if not landed:
            errors = [error for *_, error in noted if error]
            why = f"was refused: {errors[0]}" if errors else "has no rows"
            raise SubjectNotFound(f"{use_case.name}/{source}: file '{name}' {why}")
        at = arrivals(cursor, lake, use_case, source, name, landed)
        where = f"_file = {literal(name)}"
        within = Range.of(landed).holds(WINDOW_START)
        held = _held(cursor, lake, use_case, source, where, within)
        spans: dict[Window, SourceSpan] = {}
        waiting = []
        for start in landed:
            window = use_case.calendar.window_stored(start)
            if start not in at and start not in held:
                waiting.append(window)
                continue
            # Whole windows: rows that it replaced may have been anywhere in them.
            rows, since = held[start][0] if start in held else 0, min(at.get(start, [0]))
            if (other := spans.get(window)) is not None:
                # Another calendar noted it under other starts.
                rows, since = rows + other.rows, min(since, other.since)
            spans[window] = SourceSpan(rows, window, since)
        return Subject(
            source, f"file {name} of {source}", spans, where,
            min((began for _, began, _ in held.values()), default=None),
            landed=sum(landed.values()),
            quarantined=_quarantined(cursor, lake, use_case, source, name, within),
            waiting=tuple(window for window in waiting if window not in spans),
            is_correction=bool(held) and all(corrects for *_, corrects in held.values()),
        )  # fmt: skip


def _source_of(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    name: str,
    source: str | None,
) -> str:
    if source is not None and source not in use_case.sources:
        raise SubjectNotFound(f"{use_case.name}: {unknown('source', source, use_case.sources)}")
    landings = landings_table(use_case)
    if landings.name not in lake.tables(cursor, use_case.name):
        raise SubjectNotFound(f"{use_case.name}: no file has landed yet")
    found = [
        each
        for (each,) in cursor.execute(
            f"SELECT DISTINCT source FROM {landings.sql} WHERE file = ? ORDER BY 1", [name]
        ).fetchall()
        if each in use_case.sources and source in {None, each}
    ]
    if len(found) > 1:
        raise SubjectNotFound(
            f"{use_case.name}: file '{name}' is one of {', '.join(found)}; name the source"
        )
    if not found:
        rows = cursor.execute(
            f"SELECT DISTINCT file FROM {landings.sql} WHERE $1 IS NULL OR source = $1 ORDER BY 1",
            [source],
        ).fetchall()
        raise SubjectNotFound(
            f"{use_case.name}: {unknown('landed file', name, (each for (each,) in rows))}"
        )
    return str(found[0])


def _held(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    file: str,
    within: str,
) -> dict[datetime, tuple[int, datetime, bool]]:
    """What a source holds or held of a file, by window.

    That is the number of rows, when the first of them was known, and whether all are corrections.
    """  # fmt: skip
    try:
        relation = lake.relation(cursor, use_case.name, source)
    except TableNotFound:
        return {}
    key = ", ".join((WINDOW_START, *map(quote, use_case.sources[source].key)))
    versions = KnownVersions(lake, cursor, use_case, None).sql(source, within)
    never_corrected = "" if versions is None else f"ANTI JOIN {versions} USING ({key})"
    rows = f"""SELECT {WINDOW_START}, _file, _row, known_at AS __began, true AS __first
        FROM {relation} {never_corrected} WHERE {within}"""
    if versions is not None:
        earliest = f"min({KNOWN_FROM}) OVER (PARTITION BY {key})"
        rows += f""" UNION ALL SELECT {WINDOW_START}, _file, _row, {KNOWN_FROM},
            {KNOWN_FROM} = known_at AND {KNOWN_FROM} = {earliest} FROM {versions}"""
    found = cursor.execute(
        f"""SELECT {WINDOW_START}, count(DISTINCT _row), min(__began), NOT bool_or(__first)
        FROM ({rows}) WHERE {file} GROUP BY 1"""
    ).fetchall()
    return {start: (count, began, corrects) for start, count, began, corrects in found}


def _quarantined(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    name: str,
    within: str,
) -> int:
    table = quarantine_table(use_case)
    if table.name not in lake.tables(cursor, use_case.name):
        return 0
    row = cursor.execute(
        f"SELECT count(*) FROM {table.sql} WHERE source = ? AND _file = ? AND {within}",
        [source, name],
    ).fetchone()
    return int(row[0]) if row else 0
