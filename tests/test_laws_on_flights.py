"""The laws of the platform, attacked on the use case that ships, around a change of clocks."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from demo.source_system import land_flights
from ml_platform.errors import EmptyPartition, NoChampion
from ml_platform.features import (
    OnlineFeatures,
    OnlineStore,
    RequestReader,
    assemble,
    check_leak,
    compute_features,
    compute_labels,
    needed_columns,
    online_features,
    publish_views,
    request_columns,
)
from ml_platform.registry import Promotion, Registry, record
from ml_platform.scoring import reproduce, score, trace
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train

FOLDER = Path(__file__).parents[1] / "use_cases" / "flight_delays"
COMMIT = Commit("test", "0")
# Clocks went forward on the 10th.
DAYS = [date(2013, 3, day) for day in range(1, 17)]
VIEWS = list(load_use_case(FOLDER).features)


@dataclass(frozen=True)
class Flights:
    use_case: UseCase
    lake: Lake
    registry: Registry

    def day(self, key: str) -> Window:
        return self.use_case.calendar.window(key)

    def range(self, first: str, last: str) -> Window:
        return Window(self.day(first).start, self.day(last).end)

    def rows(self, table: str, window_range: Window) -> list[tuple[object, ...]]:
        columns = f"* EXCLUDE ({', '.join(('_snapshot', *self.stamps(table)))})"
        with self.lake.cursor(self.use_case.timezone) as cursor:
            relation = self.lake.relation(cursor, self.use_case.name, table)
            return cursor.execute(
                f"SELECT {columns} FROM {relation} "
                "WHERE window_start >= timezone('UTC', ?) AND window_start < timezone('UTC', ?) "
                "ORDER BY ALL",
                [window_range.start, window_range.end],
            ).fetchall()

    @staticmethod
    def stamps(table: str) -> tuple[str, ...]:
        return ("snapshot", "scored_at") if table == "predictions" else ()

    def snapshot(self) -> int:
        with self.lake.cursor() as cursor:
            return self.lake.snapshot(cursor)

    def compute(self, window_range: Window) -> None:
        for source in self.use_case.sources:
            ingest(self.lake, self.use_case, source, window_range, COMMIT)
        for view in self.use_case.features:
            compute_features(self.lake, self.use_case, view, window_range, COMMIT)
        compute_labels(self.lake, self.use_case, window_range, COMMIT)


def open_flights(root: Path) -> Flights:
    case = load_use_case(FOLDER)
    short = case.model.model_copy(update={"window": Duration(11, "d"), "holdout": Duration(2, "d")})
    settings = Settings(data=root)
    use_case = case.model_copy(update={"model": short})
    return Flights(use_case, Lake(settings), Registry(settings))


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flights]:
    """Sixteen days in one run, a model on the 13th, and predictions from then on."""
    root = tmp_path_factory.mktemp("flights")
    land_flights(root / "landing" / "flight_delays", DAYS)
    flights = open_flights(root)
    flights.compute(flights.range("2013-03-01", "2013-03-16"))
    case = flights.use_case
    cutoff = flights.day("2013-03-13").start
    version = train(flights.lake, flights.registry, case, cutoff, COMMIT, tags={}).version
    decide(flights.lake, flights.registry, case, version, COMMIT, decided_by="test")
    served = flights.range("2013-03-13", "2013-03-16")
    score(flights.lake, flights.registry, case, served, COMMIT)
    yield flights
    flights.lake.close()


def same(one: object, other: object) -> bool:
    both_floats = isinstance(one, float) and isinstance(other, float)
    return one == other or (both_floats and math.isclose(one, other, rel_tol=1e-9))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    "key",
    [
        "2013-03-10",
        pytest.param("2013-03-11", marks=pytest.mark.slow),
        pytest.param("2013-03-15", marks=pytest.mark.slow),
    ],
)
def test_no_feature_depends_on_what_was_not_known(flights: Flights, view: str, key: str) -> None:
    report = check_leak(flights.lake, flights.use_case, view, flights.day(key), cuts=5)
    report.raise_if_found()
    assert report.rows_compared > 0


@pytest.mark.slow
def test_a_range_equals_its_partitions(flights: Flights, tmp_path: Path) -> None:
    alone = open_flights(tmp_path)
    landing = Path(flights.lake.settings.landing_uri)
    (tmp_path / "landing").symlink_to(landing)
    window_range = flights.range("2013-03-09", "2013-03-12")
    before = flights.range("2013-03-01", "2013-03-08")
    for source in alone.use_case.sources:
        ingest(alone.lake, alone.use_case, source, before, COMMIT)
    days = list(alone.use_case.calendar.windows(window_range))
    for source in alone.use_case.sources:
        for day in days:
            ingest(alone.lake, alone.use_case, source, day, COMMIT)
        assert alone.rows(source, window_range) == flights.rows(source, window_range)
    for view in alone.use_case.features:
        for day in days:
            compute_features(alone.lake, alone.use_case, view, day, COMMIT)
        table = feature_table(view)
        ours, theirs = alone.rows(table, window_range), flights.rows(table, window_range)
        assert len(ours) == len(theirs) > 0
        for one, other in zip(ours, theirs, strict=True):
            assert all(map(same, one, other)), (table, one, other)
    alone.lake.close()


def test_materialising_twice_is_materialising_once(flights: Flights) -> None:
    window_range = flights.range("2013-03-09", "2013-03-12")
    before = flights.snapshot()
    flights.compute(window_range)
    served = flights.range("2013-03-13", "2013-03-16")
    score(flights.lake, flights.registry, flights.use_case, served, COMMIT)
    assert flights.snapshot() == before


def test_every_landed_row_is_ingested_or_quarantined(flights: Flights) -> None:
    window_range = flights.range("2013-03-01", "2013-03-16")
    folder = Path(flights.lake.settings.landing_uri) / "flight_delays"
    for source in flights.use_case.sources:
        report = ingest(flights.lake, flights.use_case, source, window_range, COMMIT)
        counts = report.windows.values()
        assert all(c.landed == c.ingested + c.quarantined for c in counts)
        assert not report.refused
        last = [folder / source / f"{day}.csv" for day in DAYS]
        lines = sum(len(f.read_text().splitlines()) - 1 for f in last if f.exists())
        assert sum(c.landed for c in counts) == lines


def test_stored_predictions_come_back_to_the_bit(flights: Flights) -> None:
    for key in ("2013-03-13", "2013-03-16"):
        window = flights.day(key)
        again = reproduce(flights.lake, flights.registry, flights.use_case, window)
        assert again.is_exact
        assert again.rows > 500


def test_predictions_come_back_to_the_bit_after_the_past_was_corrected(flights: Flights) -> None:
    case = flights.use_case
    window = flights.day("2013-03-14")
    with flights.lake.cursor() as cursor:
        cursor.execute(
            "UPDATE lake.flight_delays.weather_features SET temperature = 451 "
            "WHERE window_start >= '2013-03-14'"
        )
    try:
        assert reproduce(flights.lake, flights.registry, case, window).is_exact
    finally:
        window_range = flights.range("2013-03-14", "2013-03-16")
        compute_features(flights.lake, case, "weather", window_range, COMMIT)


def test_a_prediction_is_traced_to_its_source_rows(flights: Flights) -> None:
    flight_id = str(flights.rows("predictions", flights.day("2013-03-15"))[200][1])
    found = trace(flights.lake, flights.registry, flights.use_case, {"flight_id": flight_id})
    assert found.prediction["flight_id"] == flight_id
    assert found.model["cutoff"].startswith("2013-03-13")
    origin = next(f for f in found.features if f.view == "carrier")
    assert origin.row is not None
    (outcomes,) = origin.sources
    assert outcomes.count > 0
    file, number = outcomes.origins[0]
    line = (Path(flights.lake.settings.landing_uri) / "flight_delays" / file).read_text()
    assert found.prediction["flight_id"].split("-")[0] in line.splitlines()[number - 1]


def test_a_day_is_predicted_by_the_champion_of_that_day(flights: Flights, tmp_path: Path) -> None:
    case = flights.use_case
    other = train(
        flights.lake, flights.registry, case, flights.day("2013-03-12").start, COMMIT, tags={}
    ).version
    moment = flights.day("2013-03-15").start
    record(
        flights.lake,
        case,
        Promotion(other, moment, datetime.now(UTC), "test", "promoted", "as of then"),
        COMMIT,
    )
    served = flights.range("2013-03-13", "2013-03-16")
    report = score(flights.lake, flights.registry, case, served, COMMIT)
    versions = {case.calendar.key(window): version for window, version in report.versions.items()}
    assert versions["2013-03-14"] != other
    assert versions["2013-03-15"] == versions["2013-03-16"] == other


def test_what_cannot_be_computed_is_an_error_and_no_number(flights: Flights) -> None:
    early = flights.day("2013-03-05")
    report = score(flights.lake, flights.registry, flights.use_case, early, COMMIT)
    with pytest.raises(NoChampion, match="no promotion is effective"):
        report.raise_if_empty()
    later = flights.day("2013-06-01")
    report = score(flights.lake, flights.registry, flights.use_case, later, COMMIT)
    with pytest.raises(EmptyPartition, match="no examples"):
        report.raise_if_empty()
    with pytest.raises(EmptyPartition, match="no predictions"):
        reproduce(flights.lake, flights.registry, flights.use_case, early)


@pytest.mark.slow
def test_training_again_makes_the_same_model_to_the_bit(flights: Flights, tmp_path: Path) -> None:
    other = Registry(Settings(data=tmp_path))
    cutoff = flights.day("2013-03-13").start
    case = flights.use_case
    first = train(flights.lake, flights.registry, case, cutoff, COMMIT, tags={})
    again = train(flights.lake, other, case, cutoff, COMMIT, tags={})
    assert again.is_new
    assert again.digest == first.digest


def as_a_client_asks(flights: Flights, key: str) -> list[dict[str, str]]:
    """The flights of a day as they stand in the file, in the order that examples are in."""
    file = Path(flights.lake.settings.landing_uri) / "flight_delays" / "schedule" / f"{key}.csv"
    needed = needed_columns(flights.use_case)
    with file.open() as lines:
        rows = [{column: row[column] for column in needed} for row in csv.DictReader(lines)]
    return sorted(rows, key=lambda r: (datetime.fromisoformat(r["scheduled_at"]), r["flight_id"]))


@pytest.mark.parametrize("key", ["2013-03-15", "2013-03-16"])
def test_features_looked_up_online_are_those_joined_offline_to_the_bit(
    flights: Flights, online_store: OnlineStore, key: str
) -> None:
    case, day = flights.use_case, flights.day(key)
    publish_views(flights.lake, online_store, case, flights.range("2013-03-01", "2013-03-16"))
    with flights.lake.cursor(case.timezone) as cursor:
        offline = assemble(cursor, flights.lake, case, day, flights.snapshot())
    rows = as_a_client_asks(flights, key)

    asked = request_columns(case, rows)
    online = asked.join(online_features(online_store, case, asked))

    assert len(offline) > 500
    pd.testing.assert_frame_equal(online, offline, check_exact=True)
    reader, features = RequestReader(case), OnlineFeatures(online_store, case)
    quick = reader.read(rows)
    looked_up = features.look_up(quick.keys, quick.moments)
    inputs = {**quick.inputs, **looked_up.columns}
    pd.testing.assert_frame_equal(
        pd.DataFrame(inputs), offline[list(case.model_columns)], check_exact=True
    )
    for view, outcomes in looked_up.outcomes.items():
        columns = [column for column in inputs if column.startswith(f"{view}__")]
        joined_to_nothing = offline[columns].isna().all(axis="columns")
        assert [outcome != "found" for outcome in outcomes] == joined_to_nothing.tolist()
    alone = [reader.read([row]) for row in rows[:50]]
    found = pd.concat([pd.DataFrame(features.look_up(r.keys, r.moments).columns) for r in alone])
    joined = offline[list(found.columns)].head(50)
    pd.testing.assert_frame_equal(found.reset_index(drop=True), joined, check_exact=True)
    reader.close()
    features.close()


def test_a_corrected_day_is_looked_up_online_as_corrected(
    flights: Flights, online_store: OnlineStore
) -> None:
    case, window_range = flights.use_case, flights.range("2013-03-14", "2013-03-16")
    # Of an empty store, the days before are filled too.
    publish_views(flights.lake, online_store, case, flights.day("2013-03-15"))
    publish_views(flights.lake, online_store, case, flights.day("2013-03-16"))
    asked = request_columns(case, as_a_client_asks(flights, "2013-03-16"))
    before = online_features(online_store, case, asked)
    with flights.lake.cursor() as cursor:
        cursor.execute(
            "UPDATE lake.flight_delays.weather_features SET temperature = 451 "
            "WHERE window_start >= '2013-03-16'"
        )
    try:
        publish_views(flights.lake, online_store, case, flights.day("2013-03-16"))
        after = online_features(online_store, case, asked)
        with flights.lake.cursor(case.timezone) as cursor:
            offline = assemble(
                cursor, flights.lake, case, flights.day("2013-03-16"), flights.snapshot()
            )
    finally:
        compute_features(flights.lake, case, "weather", window_range, COMMIT)
    assert (before["weather__temperature"] < 451).all()
    assert (after["weather__temperature"] == 451).sum() > 400
    pd.testing.assert_frame_equal(after, offline[list(after.columns)], check_exact=True)


@pytest.mark.slow
def test_what_requests_of_the_last_two_days_need_is_kept_online(
    flights: Flights, online_store: OnlineStore
) -> None:
    case, window_range = flights.use_case, flights.range("2013-03-01", "2013-03-16")
    published = publish_views(flights.lake, online_store, case, window_range)
    # Seven days before the 15th it was the 8th, although clocks went forward in between.
    for view, first in ("origin", "2013-03-14"), ("carrier", "2013-03-08"):
        kept = flights.day(first).start
        with flights.lake.cursor() as cursor:
            (expected,) = cursor.execute(
                f"SELECT count(*) FROM lake.flight_delays.{view}_features WHERE event_time >= ?",
                [kept],
            ).fetchall()[0]
        assert online_store.count(case.name, view) == expected
        assert sum(published[view].rows.values()) == expected
    again = publish_views(flights.lake, online_store, case, flights.day("2013-03-02"))
    assert sum(again["origin"].rows.values()) == 0
    assert again["origin"].newest == published["origin"].newest


def test_late_counts_cancelled_and_diverted_flights(flights: Flights) -> None:
    with flights.lake.cursor() as cursor:
        counted = cursor.execute(
            """SELECT bool_and(label) FROM lake.flight_delays.labels
            JOIN lake.flight_delays.outcomes USING (flight_id) WHERE status <> 'arrived'"""
        ).fetchone()
        arrived = cursor.execute(
            """SELECT bool_and(label = (arrival_delay > 15)) FROM lake.flight_delays.labels
            JOIN lake.flight_delays.outcomes USING (flight_id) WHERE status = 'arrived'"""
        ).fetchone()
    assert counted == arrived == (True,)


def test_days_have_the_hours_that_their_clocks_showed(flights: Flights) -> None:
    spring = flights.day("2013-03-10")
    assert spring.end.astimezone(UTC) - spring.start.astimezone(UTC) == timedelta(hours=23)
    assert all(flights.rows("schedule", spring))
