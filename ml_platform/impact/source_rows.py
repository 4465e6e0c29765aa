"""A row of a source, or one of its versions, as the subject of an impact."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import duckdb

from ml_platform.errors import SubjectNotFound
from ml_platform.features import inside_sql, windows_sql
from ml_platform.impact.subjects import RowVersion, SourceSpan, Subject, arrivals
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase, version_table
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.changes import Range
from ml_platform.storage.tables import WINDOW_START, naive_utc

MOST_NAMED = 10
"""So many partitions or versions are named where one has to be chosen."""


def source_row(
    lake: Lake,
    use_case: UseCase,
    source: str,
    key: Mapping[str, str],
    *,
    at: datetime | Window | None = None,
    as_of: datetime | None = None,
) -> Subject:
    """A row of a source, with all of its versions; or the version known at a moment.

    key: its key columns and values. at: its event time, or a partition that it lies in. as_of: ask
    about the version known at this moment, against the one that it replaced.
    Raises SubjectNotFound for a key that is none, and where there is no such row.
    """
    declared = use_case.sources.get(source)
    if declared is None:
        raise SubjectNotFound(f"{use_case.name}: {unknown('source', source, use_case.sources)}")
    if key.keys() != {*declared.key}:
        wanted = " ".join(f"{name}=…" for name in declared.key)
        raise SubjectNotFound(f"{use_case.name}: a row of {source} is named by {wanted}")
    where = " AND ".join(
        f"{quote(c)} = CAST({literal(value)} AS {declared.columns[c]})" for c, value in key.items()
    )
    named = f"row {', '.join(f'{c}={key[c]}' for c in declared.key)} of {source}"
    with lake.cursor(use_case.timezone) as cursor:
        versions = _versions(cursor, lake, use_case, source, where, at, named)
        since = _since(cursor, lake, use_case, source, versions)
        rewritten = _is_rewritten(cursor, lake, use_case, source, versions[0].window)
    first = versions[0]
    where += f" AND {WINDOW_START} = TIMESTAMP '{naive_utc(first.window.start)}'"
    chosen = None
    if as_of is not None:
        chosen = _known_at(versions, as_of, f"{use_case.name}: {named}")
        named += f", version {chosen + 1} of {len(versions)}"
    meant = versions if chosen is None else versions[chosen : chosen + 1]
    # What a correction moved was read at its old time too.
    times = [each.event_time for each in versions[max(0, (chosen or 0) - 1) :]]
    seen = Window(min(times, key=utc), utc(max(times, key=utc)) + datetime.resolution)
    span = SourceSpan(1, first.window if rewritten else seen, since[chosen or 0])
    return Subject(
        source, named, {first.window: span}, where, min(each.known_from for each in meant),
        versions=tuple(versions), chosen=chosen,
        is_correction=chosen is not None and not (chosen == 0 and first.is_first),
    )  # fmt: skip


def _versions(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    where: str,
    at: datetime | Window | None,
    named: str,
) -> list[RowVersion]:
    """The versions of a row in order; of one that was never corrected there is one."""
    declared = use_case.sources[source]
    time = quote(declared.event_time)
    near = "true"
    if at is not None:
        window = at if isinstance(at, Window) else use_case.calendar.window_at(at)
        near = f"{windows_sql(use_case, window)} AND {inside_sql(window, declared.event_time)}"
    parts = [
        f"""SELECT {WINDOW_START}, {time} AS event_time, _file, _row, known_at,
            known_at AS began, NULL::TIMESTAMPTZ AS ended, false AS is_version
        FROM {lake.relation(cursor, use_case.name, source)} WHERE {where} AND {near}"""
    ]
    if version_table(source) in KnownVersions(lake, cursor, use_case, None).tables:
        table = f"lake.{quote(use_case.name)}.{quote(version_table(source))}"
        parts.append(
            f"""SELECT {WINDOW_START}, {time}, _file, _row, known_at, {KNOWN_FROM}, {KNOWN_UNTIL},
                true FROM {table} WHERE {where} AND {near}"""
        )
    try:
        rows = cursor.execute(
            f"""SELECT * EXCLUDE (is_version) FROM ({" UNION ALL ".join(parts)})
            QUALIFY is_version OR NOT bool_or(is_version) OVER (PARTITION BY {WINDOW_START})
            ORDER BY {WINDOW_START}, began"""
        ).fetchall()
    except (duckdb.ConversionException, duckdb.OutOfRangeException) as error:
        said = str(error).splitlines()[0].removeprefix("Conversion Error: ")
        raise SubjectNotFound(f"{use_case.name}: {named}: {said}") from None
    if not rows:
        then = "" if at is None else " then"
        raise SubjectNotFound(f"{use_case.name}: there is no {named}{then}")
    starts = sorted({start for start, *_ in rows})
    if len(starts) > 1:
        keys = [
            use_case.calendar.key(use_case.calendar.window_stored(start))
            for start in starts[:MOST_NAMED]
        ]
        raise SubjectNotFound(
            f"{use_case.name}: {named} is in the partitions {', '.join(keys)}; name one of them"
        )
    return [
        RowVersion(use_case.calendar.window_stored(start), _aware(use_case, happened), *rest)
        for start, happened, *rest in rows
    ]


def _since(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    versions: Sequence[RowVersion],
) -> list[int]:
    """From which snapshot on each version may have been read."""
    start = naive_utc(versions[0].window.start)
    declared = use_case.sources[source]
    noted: dict[str, list[int]] = {}
    found = []
    for place, version in enumerate(versions):
        # A table of a database is noted by its own name.
        file = declared.rows_of or version.file
        if file not in noted:
            found_at = arrivals(cursor, lake, use_case, source, file, [start])
            noted[file] = found_at.get(start, [])
        # A file says one thing of a key each time that it is ingested.
        before = sum((declared.rows_of or v.file) == file for v in versions[:place])
        at = noted[file]
        found.append(at[min(before, len(at) - 1)] if at else 0)
    return found


def _is_rewritten(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, source: str, window: Window
) -> bool:
    """Whether the past of a window was rewritten: then nothing says what its rows were before."""
    if "ingestions" not in lake.tables(cursor, use_case.name):
        return False
    found = cursor.execute(
        f"""SELECT 1 FROM lake.{quote(use_case.name)}.ingestions WHERE source = ?
        AND {Range.of([naive_utc(window.start)]).holds("window_start")}
        AND corrections = 'rewrite' LIMIT 1""",
        [source],
    ).fetchone()
    return found is not None


def _known_at(versions: Sequence[RowVersion], moment: datetime, named: str) -> int:
    for place, version in enumerate(versions):
        until = version.known_until
        if utc(version.known_from) <= utc(moment) and (until is None or utc(moment) < utc(until)):
            return place
    listed = ", ".join(
        f"from {v.known_from.isoformat(' ')}"
        + (f" to {v.known_until.isoformat(' ')}" if v.known_until else " on")
        for v in versions[:MOST_NAMED]
    )
    raise SubjectNotFound(f"{named} was not known at {moment.isoformat(' ')}; it is {listed}")


def _aware(use_case: UseCase, moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=use_case.calendar.timezone)
