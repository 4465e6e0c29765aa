"""Queries that would yield other rows each time: which are refused, and which only look like it."""

from collections.abc import Iterator
from contextlib import closing

import duckdb
import pytest

from ml_platform.spec.moving import (
    BY_ARGUMENTS,
    HARMLESS,
    ROWS_FROM_ARGUMENTS,
    SESSION_FUNCTIONS,
    duckdb_catalog,
)
from ml_platform.spec.queries import QueryChecker, checking_database, complaint

OTHER_VALUE = '"{}" is another value each time; take it from a column'


@pytest.fixture(scope="module")
def checker() -> Iterator[QueryChecker]:
    with closing(checking_database()) as database:
        checker = QueryChecker(database, "UTC")
        checker.create(
            "trips", {"ts": "TIMESTAMPTZ", "x": "DOUBLE", "uuid": "VARCHAR", "today": "DATE"}
        )
        checker.create("odd", {"current_date": "DATE", "tables": "INTEGER"})
        yield checker
        checker.close()


def refusal(checker: QueryChecker, query: str) -> str:
    with pytest.raises(duckdb.BinderException) as caught:
        checker.columns(query)
    return complaint(caught.value)


@pytest.mark.parametrize(
    ("expression", "function"),
    [
        ("age(ts)", "age"),
        ("AGE(ts)", "age"),
        ("ts.age()", "age"),
        ("main.age(ts)", "age"),
        ("txid_current()", "txid_current"),
        ("current_transaction_id()", "current_transaction_id"),
        ("current_connection_id()", "current_connection_id"),
        ("current_query()", "current_query"),
        ("current_schema", "current_schema"),
        ("getvariable('x')", "getvariable"),
        ("current_setting('TimeZone')", "current_setting"),
        ("now()", "now"),
        ("Today()", "today"),
        ("CURRENT_DATE", "current_date"),
        ("localtimestamp", "localtimestamp"),
        ("current_localtime()", "current_localtime"),
        ("ago(INTERVAL 1 DAY)", "ago"),
        ("pg_postmaster_start_time()", "pg_postmaster_start_time"),
        ("random()", "random"),
        ("uuid()", "uuid"),
        ("list_transform([1], lambda y: y + random())", "random"),
        ("sum(x) OVER (ORDER BY random())", "random"),
        ("(SELECT max(uuidv7()) FROM trips)", "uuidv7"),
    ],
)
def test_a_function_of_the_moment_is_refused(
    checker: QueryChecker, expression: str, function: str
) -> None:
    said = refusal(checker, f"SELECT {expression} AS it FROM trips")
    assert said == OTHER_VALUE.format(function)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT x FROM trips WHERE ts > now()",
        "SELECT x FROM trips ORDER BY now()",
        "SELECT x FROM trips GROUP BY x HAVING max(ts) < now()",
        "SELECT x FROM trips QUALIFY row_number() OVER (ORDER BY now()) = 1",
        "WITH t AS (SELECT x, now() AS at FROM trips) SELECT x FROM t",
        "SELECT t.x FROM trips t JOIN trips u ON t.ts < u.ts AND u.ts < now()",
        "SELECT x FROM trips UNION ALL SELECT epoch(now()) FROM trips",
    ],
)
def test_it_is_found_wherever_it_stands(checker: QueryChecker, query: str) -> None:
    assert refusal(checker, query) == OTHER_VALUE.format("now")


@pytest.mark.parametrize(
    "query",
    [
        "SELECT x FROM trips TABLESAMPLE 10%",
        "SELECT x FROM trips USING SAMPLE 5 ROWS",
        "SELECT x FROM (SELECT * FROM trips USING SAMPLE 10% (bernoulli))",
        # A seed does not help: which rows it chooses depends on how they are stored.
        "SELECT x FROM trips TABLESAMPLE reservoir(5 ROWS) REPEATABLE (3)",
    ],
)
def test_a_sample_is_refused(checker: QueryChecker, query: str) -> None:
    assert refusal(checker, query).startswith("a sample has other rows each time; filter by a key")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("SELECT * FROM duckdb_tables()", "duckdb_tables"),
        ("SELECT * FROM duckdb_tables", "duckdb_tables"),
        ("SELECT table_name FROM information_schema.tables", "tables"),
        ("SELECT x FROM trips, pg_timezone_names()", "pg_timezone_names"),
        ("FROM query('SELECT now()')", "query"),
        ("FROM query_table('trips')", "query_table"),
        ("FROM histogram('trips', 'x')", "histogram"),
    ],
)
def test_what_reads_something_else_than_sources_is_refused(
    checker: QueryChecker, query: str, name: str
) -> None:
    assert refusal(checker, query) == f'"{name}" is not a source; a query reads sources only'


@pytest.mark.parametrize(
    "query",
    [
        "SELECT age(ts, ts) AS it FROM trips",
        "SELECT ts.age(ts) AS it FROM trips",
        "SELECT uuid, today FROM trips",
        "SELECT trips.today AS it FROM trips",
        "SELECT current_date FROM odd",
        "WITH tables AS (FROM trips) SELECT x FROM tables",
        "SELECT 'now()' AS it, '\"sample\":{' AS \"function_name\" FROM trips",
        "SELECT CASE WHEN x > 3 THEN error('too much') END AS it FROM trips",
        "SELECT x, it FROM trips, range(3) AS r(it)",
        "SELECT unnest([x, 2]) AS it FROM trips",
        "SELECT histogram(x) AS it FROM trips",
        "SELECT hash(uuid) % 10 = 0 AS it FROM trips",
        "SELECT list_sum([x, 1.0]) AS it, pg_typeof(x) AS kind, current_user AS who FROM trips",
    ],
)
def test_what_only_looks_like_it_is_not_refused(checker: QueryChecker, query: str) -> None:
    assert checker.columns(query)


def test_all_that_the_catalog_calls_unstable_counts() -> None:
    with closing(duckdb.connect()) as connection:
        unstable = connection.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE stability <> 'CONSISTENT'"
        ).fetchall()
    assert {name for (name,) in unstable} - HARMLESS <= duckdb_catalog().moving
    assert len(unstable) > 20


def test_the_names_that_the_catalog_lacks_are_functions_that_it_knows() -> None:
    with closing(duckdb.connect()) as connection:
        rows = connection.execute("SELECT function_name FROM duckdb_functions()").fetchall()
    known = {name for (name,) in rows}
    named = SESSION_FUNCTIONS | HARMLESS | ROWS_FROM_ARGUMENTS | {name for name, _ in BY_ARGUMENTS}
    assert named <= known


def test_no_function_left_over_says_another_thing_in_another_session() -> None:
    """Every scalar function that some simple arguments fit, called in two sessions."""
    arguments = ["", "TIMESTAMPTZ '2024-01-01'", "'a'", "1", "0.5", "'a', 'b'", "[1, 2]"]
    with closing(duckdb.connect()) as first, closing(duckdb.connect()) as second:
        second.execute("CREATE SCHEMA other; USE other; SET threads = 1; SET VARIABLE a = 'b'")
        rows = first.execute(
            "SELECT DISTINCT function_name FROM duckdb_functions() WHERE function_type "
            "IN ('scalar', 'macro') AND regexp_full_match(function_name, '\\w+')"
        ).fetchall()
        left = sorted({name for (name,) in rows} - duckdb_catalog().moving)
        called, differing = 0, set()
        for name in left:
            for given in arguments:
                try:
                    one, other = (
                        c.execute(f"SELECT {name}({given})").fetchall() for c in (first, second)
                    )
                except (duckdb.Error, ValueError, OverflowError):
                    continue
                called += 1
                differing |= {name} if repr(one) != repr(other) else set()
    assert differing == set()
    assert called > 300
