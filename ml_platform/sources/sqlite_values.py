"""Values of SQLite tables as text.

SQLite keeps any value in any column: one word in a column of numbers would stop a typed reading of
the whole table. As text each value is judged by the contract, as those of CSV files are.
"""

from collections.abc import Iterable, Mapping, Sequence

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


def text_relation(
    database: str, table: Sequence[str], kinds: Mapping[str, str], columns: Iterable[str]
) -> str:
    """SQL of columns of a table of an attached SQLite database.

    kinds: what DuckDB takes the columns' types to be. Numbers in columns of times become times in
    UTC; bytes become `x'…'`, in columns of bytes what DuckDB shows of them, and reads again.
    """
    named = tuple(columns)
    values = ", ".join(f"{_value(quote(c), kinds[c])} AS {quote(c)}" for c in named)
    query = f"SELECT {values} FROM {'.'.join(quote(part) for part in table)}"
    shown = ", ".join(
        f"{BYTES.format(quote(c))} AS {quote(c)}" if kinds[c] == "BLOB" else quote(c) for c in named
    )
    return f"(SELECT {shown} FROM sqlite_query({literal(database)}, {literal(query)}))"


def _value(column: str, kind: str) -> str:
    plain = PLAIN.format(column)
    return MOMENT.format(column, plain) if kind in {"TIMESTAMP", "DATE"} else plain
