"""Features and predictions by Spark are those in process, from any state of the lake's files."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo.source_system import land_flights
from ml_platform.engines import compute_features
from ml_platform.engines.spark.computing import Engine
from ml_platform.errors import DuplicateRows, EngineFailed, LakeError, QueryFailed
from ml_platform.features import assemble, join_sql
from ml_platform.registry import Registry
from ml_platform.scoring import reproduce, score
from ml_platform.sources import ingest
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.orphans import find_orphans
from ml_platform.training import decide, train
from tests import trips_use_case as small
from tests.corrected_rides import World, days
from tests.kept_models import promote
from tests.sparks import data_files, engine_over, forget, rows_of, settings_of

pytest.importorskip("pyspark", reason="pyspark is not installed: make install-spark")
pytestmark = [pytest.mark.slow, pytest.mark.spark]

COMMIT = Commit("test", "0")
FLIGHTS = Path(__file__).parents[1] / "use_cases" / "flight_delays"
# Clocks went forward on the 10th.
DAYS = [date(2013, 3, day) for day in range(1, 15)]


@pytest.fixture(scope="module", autouse=True)
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One session for all, which takes seconds to start; the engine joins what is open."""
    from ml_platform.engines.spark.session import spark_session

    with spark_session(settings_of(tmp_path_factory.mktemp("spark")), "UTC"):
        yield


@dataclass(frozen=True)
class Flights:
    lake: Lake
    registry: Registry
    use_case: UseCase

    def range(self, first: str, last: str) -> Window:
        calendar = self.use_case.calendar
        return Window(calendar.window(first).start, calendar.window(last).end)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flights]:
    """Two weeks in process, and a model of the 11th that predicted the rest."""
    root = tmp_path_factory.mktemp("flights")
    land_flights(root / "landing" / "flight_delays", DAYS)
    case = load_use_case(FLIGHTS)
    short = case.model.model_copy(update={"window": Duration(9, "d"), "holdout": Duration(2, "d")})
    use_case, settings = case.model_copy(update={"model": short}), settings_of(root)
    made = Flights(Lake(settings), Registry(settings), use_case)
    whole = made.range("2013-03-01", "2013-03-14")
    for source in use_case.sources:
        ingest(made.lake, use_case, source, whole, COMMIT)
    for view in use_case.features:
        compute_features(made.lake, use_case, view, whole, COMMIT)
    from ml_platform.features import compute_labels

    compute_labels(made.lake, use_case, whole, COMMIT)
    cutoff = use_case.calendar.window("2013-03-11").start
    version = train(made.lake, made.registry, use_case, cutoff, COMMIT, tags={}).version
    decide(made.lake, made.registry, use_case, version, COMMIT, decided_by="test")
    score(made.lake, made.registry, use_case, made.range("2013-03-11", "2013-03-14"), COMMIT)
    yield made
    made.lake.close()


def close(one: Any, other: Any) -> bool:
    floats = isinstance(one, float) and isinstance(other, float)
    return one == other or (floats and math.isclose(one, other, rel_tol=1e-9))


@pytest.mark.exhaustive
@pytest.mark.parametrize("view", list(load_use_case(FLIGHTS).features))
def test_the_views_of_flights_are_those_in_process(flights: Flights, view: str) -> None:
    table = feature_table(view)
    before = rows_of(flights.lake, flights.use_case, table)
    whole = flights.range("2013-03-01", "2013-03-14")
    # What is there already is not written again, and what is not there is.
    for lacks in ("false", "window_start >= TIMESTAMP '2013-03-08 05:00'"):
        forget(flights.lake, flights.use_case, table, lacks)
        written = compute_features(
            flights.lake, flights.use_case, view, whole, COMMIT, engine="spark"
        )
        assert len(written.changed) == (0 if lacks == "false" else 7)
        after = rows_of(flights.lake, flights.use_case, table)
        assert len(before) == len(after) > 0
        assert all(all(map(close, *pair)) for pair in zip(before, after, strict=True))


@pytest.mark.exhaustive
def test_predictions_are_those_in_process_to_the_bit(flights: Flights) -> None:
    lake, case = flights.lake, flights.use_case
    served = flights.range("2013-03-11", "2013-03-14")
    before = rows_of(lake, case, "predictions")
    report = score(lake, flights.registry, case, served, COMMIT, engine="spark")
    assert report.written
    assert not report.written.changed
    forget(lake, case, "predictions")
    report = score(lake, flights.registry, case, served, COMMIT, engine="spark")
    assert report.written
    assert len(report.written.changed) == 4
    assert rows_of(lake, case, "predictions") == before
    # Spark's own files, taken over as they are.
    assert all("/spark-" in path for path in data_files(lake, case, "predictions"))
    with lake.cursor() as cursor:
        assert lake.snapshot_saying(cursor, "engine", "spark") == report.written.snapshot
    assert reproduce(lake, flights.registry, case, case.calendar.window("2013-03-12")).is_exact


def test_one_window_among_others_is_replaced(flights: Flights) -> None:
    lake, case = flights.lake, flights.use_case
    before = rows_of(lake, case, "predictions")
    twelfth = "window_start = TIMESTAMP '2013-03-12 04:00'"
    forget(lake, case, "predictions", f"{twelfth} AND flight_id LIKE '%1%'")
    served = flights.range("2013-03-11", "2013-03-14")
    report = score(lake, flights.registry, case, served, COMMIT, engine="spark")
    assert report.written
    assert [case.calendar.key(w) for w in report.written.changed] == ["2013-03-12"]
    assert rows_of(lake, case, "predictions") == before
    # Its file held the other days too, so its rows were copied, and nothing was left.
    with lake.cursor() as cursor:
        from datetime import UTC, datetime, timedelta

        soon = datetime.now(UTC) + timedelta(minutes=1)
        assert not [f for f in find_orphans(lake, cursor, soon).files if "/spark-" in f]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_models_that_round_by_batch_are_given_whole_windows(tmp_path: Path, task: str) -> None:
    settings = settings_of(tmp_path / "data")
    lake, registry = Lake(settings), Registry(settings)
    case = small.write_folder(tmp_path, task)
    small.land(lake, case, small.trips(1, 26), small.days(1, 26))
    version = train(lake, registry, case, small.at(24), COMMIT, tags={}).version
    promote(lake, case, version, small.at(20))
    # A day without examples, and days before there is a champion.
    forget(lake, case, "trips", "window_start = TIMESTAMP '2024-03-22 04:00'")
    asked = small.days(18, 26)
    in_process = score(lake, registry, case, asked, COMMIT)
    before = rows_of(lake, case, "predictions")
    forget(lake, case, "predictions")
    report = score(lake, registry, case, asked, COMMIT, engine="spark")
    assert rows_of(lake, case, "predictions") == before
    assert len(before) == 6 * 40
    assert report.versions == in_process.versions
    assert {w: str(e) for w, e in report.skipped.items()} == {
        w: str(e) for w, e in in_process.skipped.items()
    }
    lake.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    lake = Lake(settings_of(tmp_path / "data"))
    yield World(tmp_path, lake)
    lake.close()


def corrected(world: World) -> None:
    world.land(
        "rides",
        "1 06",
        ("a", "1 07", "x", 1.0),
        ("b", "1 09", "x", 2.0),
        ("c", "1 12", "x", 3.0),
        ("d", "2 08", "y", 4.0),
        ("e", "2 13", "x", 5.0),
    )
    world.land(
        "arrivals",
        "1 08",
        ("p", "1 06", "1 07", "x", 5),
        ("q", "1 06", "1 08", "x", 7),
        ("r", "1 06", "1 11", "x", 9),
        ("s", "2 06", "2 07", "y", 11),
    )
    world.compute()
    # Known from then on: that one delay was another, and that one arrival never was.
    world.land(
        "arrivals",
        "1 10",
        ("p", "1 06", "1 07", "x", 50),
        ("q", "1 06", "1 08", "x", 7),
        ("r", "1 06", "1 11", "x", 9),
        ("s", "2 06", "2 07", "y", 12),
    )


def test_features_and_examples_are_as_they_were_known(world: World) -> None:
    corrected(world)
    world.compute()
    tables = ("city_features", "city_features_versions")
    in_process = {table: rows_of(world.lake, world.use_case, table) for table in tables}
    assert in_process["city_features_versions"]
    for table in tables:
        forget(world.lake, world.use_case, table)
    compute_features(world.lake, world.use_case, "city", days(1, 3), COMMIT, engine="spark")
    assert {t: rows_of(world.lake, world.use_case, t) for t in tables} == in_process
    with engine_over(world.lake, world.use_case) as engine:
        snapshot = engine.basis.snapshot
        joined = assemble(engine.cursor, world.lake, world.use_case, days(1, 3), snapshot)
        sql = join_sql(
            engine.cursor, world.lake, world.use_case, days(1, 3), snapshot,
            mark="row(event_time, ride)",
        )  # fmt: skip
        by_spark = engine.rows(sql).toPandas().sort_values(["event_time", "ride"])
    names = ["ride", "city", "distance", "city__delays"]
    ours, theirs = (list(f[names].itertuples(index=False)) for f in (joined, by_spark))
    assert all(all(map(alike, *pair)) for pair in zip(ours, theirs, strict=True))
    assert joined["city__delays"].notna().any()


def test_an_encrypted_lake_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    lake = Lake(settings_of(tmp_path / "data", encrypted=True))
    world = World(tmp_path, lake)
    corrected(world)
    with lake.cursor() as cursor:
        before = lake.snapshot(cursor)
    with pytest.raises(LakeError, match="encrypted with keys that only DuckDB has"):
        compute_features(lake, world.use_case, "city", days(1, 3), COMMIT, engine="spark")
    with lake.cursor() as cursor:
        assert lake.snapshot(cursor) == before
    assert not list(tmp_path.rglob("spark-*"))
    lake.close()


def test_a_query_that_spark_cannot_take_is_named_with_its_line(world: World) -> None:
    corrected(world)
    case = world.declare(
        city="SELECT city, arrived AS event_time,\n kurtosis(delay) AS odd\n"
        "FROM arrivals GROUP BY ALL"
    )
    with pytest.raises(QueryFailed, match=r"city\.sql:2: engine spark: .*; write it otherwise"):
        compute_features(world.lake, case, "city", days(1, 3), COMMIT, engine="spark")


def test_what_fails_in_spark_leaves_no_file(world: World) -> None:
    corrected(world)
    twice = "SELECT city, arrived AS event_time, delay AS d FROM arrivals"
    case = world.declare(city=f"{twice}\nUNION ALL\n{twice}")
    with pytest.raises(DuplicateRows, match="city_features: 2 rows with event_time"):
        compute_features(world.lake, case, "city", days(1, 3), COMMIT, engine="spark")
    case = world.declare(
        city="SELECT city, arrived AS event_time, CAST(1e30 AS INTEGER) AS d FROM arrivals"
    )
    with pytest.raises(EngineFailed, match=r"^engine spark: rides: .*CAST_OVERFLOW[^\n]*$"):
        compute_features(world.lake, case, "city", days(1, 3), COMMIT, engine="spark")
    assert not list(Path(world.lake.settings.data).rglob("spark-*"))


VALUES = """
    (1, TIMESTAMPTZ '2013-03-10 06:59:59.123456Z', 7, -3, 2.5::DOUBLE, 'Ab', true,
        DATE '2013-03-10'),
    (2, TIMESTAMPTZ '2013-03-10 07:00:00Z', -7, 2, -2.5::DOUBLE, '', false, DATE '2012-02-29'),
    (3, TIMESTAMPTZ '2013-11-03 05:30:00Z', 0, 5, 'NaN'::DOUBLE, 'x y', NULL, DATE '1999-12-31'),
    (4, TIMESTAMPTZ '2013-11-03 06:30:00Z', NULL, 1, 'inf'::DOUBLE, NULL, true, NULL),
    (5, NULL, 123456789, NULL, NULL, 'zz', false, DATE '2024-12-30'),
    (6, TIMESTAMPTZ '2020-02-29 23:59:59Z', 1, 0, 0.0::DOUBLE, 'ab', true, DATE '2020-01-01')
"""  # fmt: skip
EXPRESSIONS = [
    "n + m", "n - m", "n * m", "n / m", "n / 2", "d / n", "1 / m", "n // 2", "n // m", "n % m",
    "-n", "abs(n)", "round(d)", "floor(d)", "ceil(d)", "least(n, m)",
    "greatest(n, m, 3)", "CAST(CASE WHEN isfinite(d) THEN d END AS BIGINT)", "CAST(n AS DOUBLE)",
    "CAST(b AS INTEGER)", "CAST(m / 2 AS INTEGER)",
    "CAST(n AS VARCHAR)", "CAST(b AS VARCHAR)", "CAST(day AS VARCHAR)", "CAST(m AS SMALLINT)",
    "n = m", "n IS DISTINCT FROM m", "d > 0", "d = d", "isnan(d)", "isfinite(d)", "b AND n > 0",
    "n IN (1, 7)", "n BETWEEN 0 AND 7", "coalesce(n, m)", "nullif(n, 0)", "NOT b",
    "CASE WHEN n > 0 THEN 'up' ELSE 'down' END", "if(b, n, m)", "sign(n)", "exp(m)",
    "lower(s)", "upper(s)", "length(s)", "s || '!'", "starts_with(s, 'a')", "s LIKE '%b'",
    "year(t)", "month(t)", "day(t)", "hour(t)", "minute(t)", "quarter(t)", "dayofyear(t)",
    "dayofweek(t)", "isodow(t)", "weekday(t)", "extract(hour FROM t)",
    "extract(dow FROM t)", "extract(epoch FROM t)", "year(day)", "dayofweek(day)",
    "epoch(t)", "epoch_ms(t)", "epoch_us(t)", "epoch(day)",
    "date_trunc('hour', t)", "date_trunc('minute', t)", "date_trunc('second', t)",
    "date_trunc('day', t)", "date_trunc('week', t)", "date_trunc('month', t)", "CAST(t AS DATE)",
    "t + INTERVAL 23 HOURS", "t + INTERVAL 168 HOURS", "t - INTERVAL 30 MINUTES",
    "t + INTERVAL 1 DAY", "t - INTERVAL 7 DAYS", "t + INTERVAL 1 MONTH",
    "timezone('America/New_York', t)", "timezone('America/New_York', t) + INTERVAL 1 DAY",
    "timezone('America/New_York', timezone('America/New_York', t) + INTERVAL 1 DAY)",
    "timezone('America/New_York', timezone('America/New_York', t) - INTERVAL 7 DAY)",
    "t AT TIME ZONE 'America/New_York'",
    "date_diff('minute', t, TIMESTAMPTZ '2014-01-01')", "date_diff('day', day, DATE '2014-01-01')",
    "date_diff('second', TIMESTAMPTZ '2012-01-01 00:00:00.5Z', t)",
    "t > TIMESTAMPTZ '2013-03-10 02:59:59-05:00'", "sqrt(abs(n))", "ln(abs(n) + 1)",
    "sum(n) OVER (ORDER BY id)", "avg(n) OVER (ORDER BY id ROWS 2 PRECEDING)",
    "lag(n) OVER (ORDER BY id)", "row_number() OVER (ORDER BY d, id)", "rank() OVER (ORDER BY b)",
    "sum(m) OVER (ORDER BY t RANGE BETWEEN INTERVAL 24 HOURS PRECEDING AND CURRENT ROW)",
    "sum(m) OVER (ORDER BY t RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW)",
    "last_value(n IGNORE NULLS) OVER (ORDER BY id ROWS UNBOUNDED PRECEDING)",
    "count(*) FILTER (b) OVER (ORDER BY id)", "max(d) OVER ()", "min(s) OVER ()",
]  # fmt: skip
GROUPED = [
    "count(*)", "count(n)", "count(DISTINCT b)", "sum(n)", "sum(d)", "avg(m)", "min(t)", "max(t)",
    "arg_max(n, id)", "arg_min(s, id)", "count_if(n > 0)", "sum(n) FILTER (b)", "stddev(m)",
    "stddev_pop(m)", "variance(m)", "bool_or(b)", "bool_and(b)", "median(m)",
]  # fmt: skip


@pytest.fixture(scope="module")
def valued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, UseCase]]:
    root = tmp_path_factory.mktemp("valued")
    lake = Lake(settings_of(root / "data"))
    case = small.write_folder(root, "binary")
    with lake.cursor(case.timezone) as cursor:
        cursor.execute("CREATE SCHEMA lake.trips")
        cursor.execute(
            "CREATE TABLE lake.trips.v (window_start TIMESTAMP, id INTEGER, t TIMESTAMPTZ, "
            "n INTEGER, m INTEGER, d DOUBLE, s VARCHAR, b BOOLEAN, day DATE)"
        )
        cursor.execute(
            f"INSERT INTO lake.trips.v SELECT TIMESTAMP '2013-01-01', * FROM (VALUES {VALUES})"
        )
    yield lake, case
    lake.close()


def fetched(engine: Engine, query: str) -> list[tuple[Any, ...]]:
    """What Spark yields, with DuckDB's values."""
    engine.cursor.register("by_spark", engine.rows(query).toArrow())
    try:
        return engine.cursor.execute("FROM by_spark").fetchall()
    finally:
        engine.cursor.unregister("by_spark")


def same_rows(ours: list[tuple[Any, ...]], theirs: list[tuple[Any, ...]]) -> bool:
    pairs = zip(sorted(ours, key=repr), sorted(theirs, key=repr), strict=False)
    return len(ours) == len(theirs) and all(
        len(one) == len(other) and all(map(alike, one, other)) for one, other in pairs
    )


def alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return close(one, other)


@pytest.mark.exhaustive
def test_every_expression_has_the_same_values(valued: tuple[Lake, UseCase]) -> None:
    lake, case = valued
    wrong = []
    with engine_over(lake, case) as engine:
        queries = [f"SELECT id, {e} AS v FROM lake.trips.v" for e in EXPRESSIONS]
        queries += [f"SELECT id % 2 AS id, {e} AS v FROM lake.trips.v GROUP BY 1" for e in GROUPED]
        queries += [
            "SELECT id, n AS v FROM lake.trips.v ANTI JOIN (SELECT 3 AS id) USING (id)",
            "SELECT id, n AS v FROM lake.trips.v SEMI JOIN (SELECT 3 AS id) USING (id)",
            "FROM (SELECT id, n AS v FROM lake.trips.v UNION ALL BY NAME SELECT 9 AS id)",
            "SELECT id, v FROM (SELECT 9 AS id UNION BY NAME SELECT 9 AS id, 'a' AS v)",
            "SELECT id, n AS v FROM lake.trips.v QUALIFY row_number() OVER (ORDER BY id DESC) < 3",
            "SELECT l.id, r.id AS v FROM lake.trips.v l ASOF LEFT JOIN lake.trips.v r "
            "ON l.t >= r.t - INTERVAL 168 HOURS",
            "SELECT l.id, r.n AS v FROM lake.trips.v l ASOF JOIN lake.trips.v r "
            "ON l.b = r.b AND l.t > r.t WHERE l.t IS NOT NULL",
            "SELECT l.id, r.n + q.m AS v FROM lake.trips.v l ASOF LEFT JOIN lake.trips.v r "
            "ON l.t > r.t ASOF LEFT JOIN lake.trips.v q ON q.b = l.b AND q.t <= l.t",
        ]
        for query in queries:
            ours = engine.cursor.execute(query).fetchall()
            try:
                theirs = fetched(engine, query)
            except Exception as error:
                theirs = [(str(error)[:300],)]
            if not same_rows(ours, theirs):
                wrong.append((re.sub(r" FROM lake.*", "", query), ours, theirs))
    assert not wrong, "\n".join(map(str, wrong))


def test_the_file_of_a_snapshot_is_read_as_it_was(valued: tuple[Lake, UseCase]) -> None:
    lake, case = valued
    with lake.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE lake.trips.w AS SELECT TIMESTAMP '2013-01-01' AS window_start, "
            "range AS id FROM range(1000)"
        )
        versions = [lake.snapshot(cursor)]
        for change in (
            "DELETE FROM lake.trips.w WHERE id % 7 = 0",
            "INSERT INTO lake.trips.w VALUES (TIMESTAMP '2013-01-01', 5000)",
            "DELETE FROM lake.trips.w WHERE id = 5",
            "ALTER TABLE lake.trips.w ADD COLUMN x DOUBLE",
            "INSERT INTO lake.trips.w "
            "SELECT TIMESTAMP '2013-01-02', range, 0.5 FROM range(2000, 2900)",
            "UPDATE lake.trips.w SET x = 7 WHERE id BETWEEN 2000 AND 2100",
            "CALL ducklake_merge_adjacent_files('lake')",
            "CALL ducklake_rewrite_data_files('lake', delete_threshold => 0.0)",
            "CALL ducklake_flush_inlined_data('lake')",
        ):
            cursor.execute(change)
            versions.append(lake.snapshot(cursor))
    with engine_over(lake, case) as engine:
        for version in dict.fromkeys(versions):
            query = f"SELECT * FROM lake.trips.w AT (VERSION => {version})"
            by_spark = engine.rows(query).toArrow()
            engine.cursor.register("by_spark", by_spark)
            differ = engine.cursor.execute(
                f"(FROM by_spark EXCEPT ALL {query}) UNION ALL ({query} EXCEPT ALL FROM by_spark)"
            ).fetchall()
            engine.cursor.unregister("by_spark")
            assert not differ, version
            assert by_spark.num_rows > 800
