"""Values of SQLite tables as text.

SQLite keeps any value in any column: one word in a column of numbers would stop a typed reading of
the whole table. As text each value is judged by the contract, as those of CSV files are.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from ml_platform.sources.selection import INTEGERS, TIMES, Bounded, Selection
from ml_platform.spec.queries import literal, quote

# Of a number SQLite would show 15 digits only, and bytes need not be text.
PLAIN = """CASE typeof({0}) WHEN 'real' THEN
    CASE WHEN CAST(CAST({0} AS TEXT) AS REAL) = {0} THEN CAST({0} AS TEXT)
    ELSE printf('%!.17g', {0}) END
    WHEN 'blob' THEN 'x''' || hex({0}) || '''' ELSE CAST({0} AS TEXT) END"""
# The convention of SQLite: a number in a column of times counts seconds since 1970.
MOMENT = """coalesce(CASE typeof({0})
    WHEN 'integer' THEN strftime('%Y-%m-%d %H:%M:%S+00:00', {0}, 'unixepoch')
    WHEN 'real' THEN strftime('%Y-%m-%d %H:%M:%S', CAST({0} AS INTEGER), 'unixepoch')
        || printf('.%06d+00:00', min(round(({0} - CAST({0} AS INTEGER)) * 1000000), 999999))
    END, {1})"""
BYTES = """CASE WHEN regexp_full_match({0}, 'x''[0-9A-F]*''')
    THEN CAST(unhex({0}[3:-2]) AS VARCHAR) ELSE {0} END"""
USUAL = {"DOUBLE": ("real", "printf('%!.17g', {0})"), "BIGINT": ("integer", "CAST({0} AS TEXT)")}
"""How SQLite stores most values of columns of these types, and their text."""
READ = {"BLOB": BYTES, "DOUBLE": "coalesce(CAST(TRY_CAST({0} AS DOUBLE) AS VARCHAR), {0})"}
"""What such a text becomes: of a number as few digits as distinguish it from all others."""
DAY = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"


def sqlite_relation(
    table: Sequence[str],
    kinds: Mapping[str, str],
    columns: Mapping[str, str],
    selection: Selection,
    event: Bounded,
    mark: Bounded,
) -> str:
    """SQL of columns of a table of an attached SQLite database, for the rows that are asked for.

    table: the database and what is below it; kinds: what DuckDB takes the columns' types to be;
    columns: by name, what they are called there. Numbers in columns of times become times in UTC;
    bytes become `x'…'`, in columns of bytes what DuckDB shows of them, and reads again.
    """
    database, *rest = table
    origin = ".".join(quote(part) for part in rest)
    if where := sqlite_where(selection, event, mark):
        origin += f" WHERE {where}"
    values, shown = [], []
    for name, found in columns.items():
        values.append(f"{_text(quote(found), kinds[found])} AS {quote(name)}")
        shown.append(f"{READ.get(kinds[found], '{0}').format(quote(name))} AS {quote(name)}")
    query = f"SELECT {', '.join(values)} FROM {origin}"
    return f"(SELECT {', '.join(shown)} FROM sqlite_query({literal(database)}, {literal(query)}))"


def sqlite_where(selection: Selection, event: Bounded, mark: Bounded) -> str | None:
    """SQL that is false for rows that are surely not asked for: it knows one form of times."""
    since = selection.since
    parts = [_between(event, selection.start, selection.end)]
    if isinstance(since, datetime):
        parts.append(_between(mark, since, None))
    elif since is not None and mark.found in INTEGERS:
        parts.append(f"(typeof({mark.sql}) <> 'integer' OR {mark.sql} >= {since:d})")
    return " AND ".join(part for part in parts if part) or None


def _between(column: Bounded, start: datetime | None, end: datetime | None) -> str:
    if (start is None and end is None) or column.found not in {*TIMES, "VARCHAR"}:
        return ""
    name = column.sql
    bounds = [(">=", start, -1), ("<", end, 2)]
    instants = [(sign, _aware(at), days) for sign, at, days in bounds if at is not None]
    # The text may have an offset, or none and be of the use case's zone.
    texts = [
        f"{name} {sign} {literal(f'{at + timedelta(days=days):%F}')}" for sign, at, days in instants
    ]
    numbers = [f"{name} {sign} {at.timestamp():.0f}" for sign, at, _ in instants]
    counted = f" WHEN 'integer' THEN {' AND '.join(numbers)}" if column.found in TIMES else ""
    return (
        f"CASE typeof({name}) WHEN 'text' THEN {' AND '.join(texts)} "
        f"OR {name} NOT GLOB {literal(DAY)}{counted} ELSE true END"
    )


def _aware(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _text(column: str, kind: str) -> str:
    """SQL of a value as text; the usual ones of a type come first, as all others take longer."""
    usual, as_text = USUAL.get(kind, ("text", "{0}"))
    other = PLAIN.format(column)
    if kind in {"TIMESTAMP", "DATE"}:
        other = MOMENT.format(column, other)
    return f"CASE typeof({column}) WHEN '{usual}' THEN {as_text.format(column)} ELSE {other} END"
