"""Checks of the SQL that people write, against empty tables of the declared columns.

DuckDB binds each query without running it, so that a wrong column is found when the use case is
loaded and not when its first partition runs.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import duckdb

from ml_platform.spec.moving import moving_part
from ml_platform.spec.values import first_repeated, is_close, unknown

NUMERIC_TYPES = frozenset(
    {
        "BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT",
        "UINTEGER", "UBIGINT", "UHUGEINT", "FLOAT", "DOUBLE", "DATE",
    }
)  # fmt: skip
COMMON_TYPES = ("VARCHAR", *sorted(NUMERIC_TYPES), "DECIMAL", "TIME", "TIMESTAMP", "TIMESTAMPTZ")
ONE_ROW = "sees one row at a time; no aggregates, windows or subqueries"
TIME_TYPES = ("TIMESTAMP WITH TIME ZONE",)
TIMELIKE_TYPES = (*TIME_TYPES, "TIMESTAMP", "DATE")


def quote(name: str) -> str:
    """A SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A SQL string."""
    return "'" + text.replace("'", "''") + "'"


def time_format(text: str) -> str:
    """A format of strptime that says at least the year, or `iso`; ValueError where it is none."""
    example = "'%d.%m.%Y %H:%M' reads 31.01.2024 15:00"
    connection = duckdb.connect()
    try:
        query = "SELECT year(strptime(strftime(TIMESTAMP '2024-12-31 15:00', $1), $1))"
        row = (2024,) if text == "iso" else connection.execute(query, [text]).fetchone()
    except duckdb.Error as error:
        problem = str(error).split("\n")[0].split(": ", maxsplit=1)[-1]
        raise ValueError(f"'{text}' is not a valid time format ({problem}); {example}") from None
    finally:
        connection.close()
    if row != (2024,):
        raise ValueError(f"'{text}' does not say the year; {example}")
    return text


@lru_cache
def is_numeric(kind: str) -> bool:
    """Whether an estimator is given this DuckDB type as a number; all others become text."""
    return kind.startswith(("DECIMAL", "TIMESTAMP")) or kind in NUMERIC_TYPES


def is_time(kind: str) -> bool:
    """Whether a DuckDB type is one of days or moments."""
    return kind.startswith(("TIMESTAMP", "DATE"))


def is_zoned(kind: str) -> bool:
    """Whether a DuckDB type is one of moments, whose texts are read in a time zone."""
    return kind in ("TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE")


def checking_database() -> duckdb.DuckDBPyConnection:
    """A database to check queries in, those of any number of use cases; it costs 10 ms to open."""
    connection = duckdb.connect()
    # A query that reads files itself would see more than its window may.
    connection.execute("SET enable_external_access = false")
    # Nothing is run here, so threads would only get in each other's way.
    connection.execute("SET threads = 1")
    return connection


class QueryChecker:
    """Binds queries against the sources of one use case, all of them empty.

    database: as `checking_database` opens it; the checker leaves nothing in it.
    Methods raise duckdb.Error where DuckDB refuses; `complaint` turns that into a sentence.
    """

    def __init__(self, database: duckdb.DuckDBPyConnection, timezone: str) -> None:
        self._sources: dict[str, dict[str, str]] = {}
        self._kinds: dict[tuple[str, str], str] = {}
        self._items: dict[tuple[str, str], dict[str, str]] = {}
        self._trees: dict[str, str] = {}
        self._connection = database.cursor()
        self._connection.execute(f"SET TimeZone = {literal(timezone)}")
        # A variable of this program is no source.
        self._connection.execute("SET python_enable_replacements = false")

    def close(self) -> None:
        self._connection.close()

    def check_type(self, kind: str) -> None:
        """Refuse a type that somebody wrote and that DuckDB does not have."""
        self.columns(f"SELECT CAST(NULL AS {kind}) AS it")

    def are_types(self, kinds: Iterable[str]) -> bool:
        """Whether DuckDB has all of some types."""
        different = list(dict.fromkeys(kinds))
        named = ", ".join(f"CAST(NULL AS {kind})" for kind in different)
        try:
            return len(self._bound(f"SELECT {named}")) == len(different)
        except duckdb.Error:
            return False

    def create(self, name: str, columns: Mapping[str, str]) -> None:
        """Make one source's empty table, with the `known_at` that the platform adds."""
        columns = {**columns, "known_at": columns.get("known_at", "TIMESTAMPTZ")}
        named = ", ".join(f"{quote(column)} {kind}" for column, kind in columns.items())
        # Temporary tables are those of one connection.
        self._connection.execute(f"CREATE TEMP TABLE {quote(name)} ({named})")
        self._sources[name] = columns

    def bind_together(self, source: str, expressions: Sequence[str]) -> None:
        """Find the types of expressions over one row of a source at once, for `type_of`.

        Where one of them is refused nothing is found: `type_of` says which, and why.
        """
        selected = ", ".join(f"({each}) AS it_{n}" for n, each in enumerate(expressions))
        conditions = " OR ".join(f"({each}) IS NULL" for each in expressions)
        query = f"SELECT {selected} FROM {quote(source)} WHERE {conditions}"
        try:
            rows = self._describe(query)
            self._refuse_other_rows(query)
        except duckdb.Error:
            return
        if len(rows) == len(expressions):
            for expression, (_, kind) in zip(expressions, rows, strict=True):
                self._kinds[source, expression] = kind

    def type_of(self, source: str, expression: str) -> str:
        """Type of an expression over one row of a source."""
        if (source, expression) in self._kinds:
            return self._kinds[source, expression]
        # On one line, as it is when rows are ingested: a comment would swallow the rest there.
        query = f"SELECT ({expression}) AS it FROM {quote(source)}"
        kind = self.columns(query)["it"]
        self._refuse_other_rows(query)
        try:
            self._describe(f"SELECT 1 FROM {quote(source)} WHERE ({expression}) IS NULL")
        except duckdb.BinderException as error:
            # Conditions may hold neither aggregates nor windows, so one that binds only outside
            # of a condition has one of them.
            raise duckdb.BinderException(ONE_ROW) from error
        return kind

    def later_than(self, source: str, expression: str, column: str) -> tuple[str, str] | None:
        """Where an expression over one column of times is later than that column.

        Returns a time of the column and the one of the expression; None where it never is, and
        where it reads other columns too, so that only rows show it.
        """
        kind = self._sources[source][column]
        # Of two years: months and weekdays of every kind, clocks that change.
        moments = (
            f"SELECT CAST(m AS {kind}) AS {quote(column)} FROM range(TIMESTAMPTZ "
            "'2024-01-01 00:00:00Z', TIMESTAMPTZ '2026-01-01 00:00:00Z', INTERVAL 75 HOUR) r(m)"
        )
        it, that = f"CAST(({expression}) AS TIMESTAMPTZ)", f"CAST({quote(column)} AS TIMESTAMPTZ)"
        try:
            found = self._connection.execute(
                f"SELECT {that}::VARCHAR, {it}::VARCHAR FROM ({moments}) AS {quote(source)} "
                f"WHERE {it} > {that} LIMIT 1"
            ).fetchone()
        except duckdb.Error:
            return None
        return found and (str(found[0]), str(found[1]))

    def bind_items(self, source: str, items: Sequence[str]) -> None:
        """Find what select items over one row of a source yield at once, for `items`.

        Where one of them is refused, or yields several columns, nothing is found.
        """
        query = f"SELECT {', '.join(('known_at', *items))} FROM {quote(source)}"
        try:
            _, *found = self._describe(query)
            self._refuse_other_rows(query)
        except duckdb.Error:
            return
        if len(found) == len(items):
            for item, column in zip(items, found, strict=True):
                self._items[source, item] = dict([column])

    def items(self, source: str, item: str) -> dict[str, str]:
        """Names and types of a select item over one row of a source."""
        if (source, item) in self._items:
            return self._items[source, item]
        # With a column beside it, DuckDB refuses what would aggregate the rows to one.
        alone, beside = (
            f"SELECT {each} FROM {quote(source)}" for each in (item, f"known_at, {item}")
        )
        try:
            _, *found = self._describe(beside)
        except duckdb.Error as error:
            # What is wrong with it is said of the item alone.
            self._describe(alone)
            self._refuse_other_rows(alone)
            if isinstance(error, duckdb.BinderException):
                raise duckdb.BinderException(ONE_ROW) from error
            raise
        self._refuse_other_rows(beside)
        return dict(found or self._describe(alone))

    def columns(self, query: str) -> dict[str, str]:
        """Names and types that a query yields."""
        rows = self._describe(query)
        if twice := first_repeated(name for name, _ in rows):
            raise duckdb.BinderException(f"the query yields two columns called '{twice}'")
        return dict(rows)

    def reads(self, query: str) -> tuple[str, ...]:
        """Sources that a query names."""
        # Not DuckDB's get_table_names, which binds the query and refuses some that it would run.
        pattern = r'"type":"BASE_TABLE".*?"table_name":"([^"]*)"'
        tables = set(re.findall(pattern, self._tree(query)))
        return tuple(name for name in self._sources if name in tables)

    def _describe(self, query: str) -> list[tuple[str, str]]:
        rows = self._bound(query)
        if problem := moving_part(self._tree(query), self._sources):
            raise duckdb.BinderException(problem)
        return rows

    def _bound(self, query: str) -> list[tuple[str, str]]:
        try:
            # Binds the query, where DESCRIBE also runs one, which costs as much again.
            relation = self._connection.sql(query)
            return list(zip(relation.columns, map(str, relation.types), strict=True))
        except duckdb.Error:
            # DESCRIBE says the line, too.
            rows = self._connection.execute(f"DESCRIBE {query}").fetchall()
            return [(name, kind) for name, kind, *_ in rows]

    def _refuse_other_rows(self, query: str) -> None:
        if re.search(r'"class":"(WINDOW|SUBQUERY)"', self._tree(query)):
            raise duckdb.BinderException(ONE_ROW)

    def _tree(self, query: str) -> str:
        if query not in self._trees:
            # As a literal: the first parameter that DuckDB is given makes it import pandas.
            row = self._connection.execute(
                f"SELECT json_serialize_sql({literal(query)})"
            ).fetchone()
            self._trees[query] = str(row[0]) if row else ""
        return self._trees[query]


def only_select(text: str) -> str:
    """The one SELECT in a file, without what ends it; duckdb.Error where there is another thing.

    It ends with a line break, so that it can be put in brackets although its last line may be a
    comment.
    """
    *statements, _ = duckdb.extract_statements(f"{text}\n;SELECT 1")
    if not statements:
        raise duckdb.ParserException("the file is empty; write a SELECT")
    if len(statements) > 1:
        raise duckdb.ParserException(f"{len(statements)} statements; there should be one SELECT")
    if statements[0].type != duckdb.StatementType.SELECT:
        kind = statements[0].type.name.replace("_", " ")
        raise duckdb.ParserException(f"this is {kind}; there should be one SELECT")
    return str(statements[0].query).rstrip() + "\n"


def line_of_select(query: str) -> int:
    """Line of the SELECT that yields a query's rows, after its common table expressions."""
    depth = 0
    for offset, _ in duckdb.tokenize(query):
        character = query[offset]
        depth += (character == "(") - (character == ")")
        if depth == 0 and re.match(r"(select|from)\b", query[offset:], re.IGNORECASE):
            return query.count("\n", 0, offset) + 1
    return 1


def complaint(error: duckdb.Error, sources: Iterable[str] = ()) -> str:
    """What DuckDB says, in the words of a use case and on one line."""
    text = str(error)
    if missing := _missing(text, sources):
        return missing
    if "Cannot access file" in text:
        return "a query reads sources only; declare the file as one"
    first = re.sub(r"^\w[\w ]* Error: ", "", text.split("\n\nLINE", maxsplit=1)[0])
    first = re.sub(r"\s*\n\s*Candidate functions:.*", "", first, flags=re.DOTALL)
    return re.sub(r"\s+", " ", first).strip()


def _missing(text: str, sources: Iterable[str]) -> str | None:
    if match := re.search(r"Table with name (\S+) does not exist", text):
        return unknown("source", match[1].strip('"'), sources)
    if match := re.search(r'[Cc]olumn (?:named )?"([^"]+)"(?: not found|\n)', text):
        candidates = re.search(r"Candidate bindings: (.*)", text)
        near = re.findall(r'"([^"]+)"', candidates[1]) if candidates else []
        return unknown("column", match[1], near)
    if match := re.search(r"Type with name (\S+) does not exist", text):
        return unknown("type", match[1], COMMON_TYPES)
    if match := re.search(r"Function with name (\S+) does not exist", text):
        return _missing_function(match[1], text)
    return None


def _missing_function(name: str, text: str) -> str:
    # An operator that nothing follows has a name of DuckDB's own, and so has what it suggests.
    if (operator := name.removesuffix("__postfix")) != name:
        return f"operator '{operator}' has no value on its right"
    if not re.match(r"\w", name):
        return f"no operator '{name}'"
    near = [n for n in re.findall(r'Did you mean "([^"]+)"', text) if is_close(name, n)]
    return unknown("function", name, near)


def line_of_error(query: str, error: duckdb.Error) -> int:
    """Line of a query that DuckDB complains about."""
    text = str(error)
    if match := re.search(r"LINE (\d+):", text):
        return min(int(match[1]), query.count("\n") + 1)
    named = re.search(r'"([^"\n]+)"', text)
    lines = query.split("\n")
    if named:
        for number, line in enumerate(lines, start=1):
            if re.search(rf"\b{re.escape(named[1])}\b", line):
                return number
    return line_of_select(query)


def line_shown(query: str, error: duckdb.Error) -> int | None:
    """Line of a query that DuckDB shows, having run a larger one around it; None if it shows none.

    Lines are compared by what they say, since those of the larger query count otherwise.
    """
    match = re.search(r"^LINE \d+: (.*)$", str(error), re.MULTILINE)
    shown = match[1].removeprefix("...").removesuffix("...").strip() if match else ""
    found = [n for n, line in enumerate(query.split("\n"), start=1) if shown and shown in line]
    return found[0] if len(found) == 1 else None


def exact_path(path: str) -> str:
    """A path that DuckDB does not read as a glob."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)
