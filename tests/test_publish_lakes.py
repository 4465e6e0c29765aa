"""Predictions in lakes of others, read by the programs that others read them with."""

from collections.abc import Iterator
from datetime import UTC, date, datetime

import pytest

from ml_platform.errors import TargetError
from ml_platform.publish import Counted
from tests.published_trips import Published, published_trips
from tests.shared_lakes import SHARED_LAKES, SharedLake, local_lake
from tests.trips_use_case import ZONE, days

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=SHARED_LAKES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SharedLake:
    return local_lake(request.param, tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="module")
def trips(shared: SharedLake, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), shared.database)
    yield made
    made.lake.close()


def day(time: datetime) -> date:
    return time.astimezone(ZONE).date()


def test_every_reader_finds_the_predictions_by_partition(trips, shared):
    use_case = trips.declare("arrive", table="others.shop.arrive")
    report = trips.publish(use_case, days(9, 10))
    assert list(report.windows.values()) == [Counted(40, 40), Counted(40, 40)]
    wanted = [
        (
            trip,
            probability,
            version,
            probability > 0.4,
            time.astimezone(UTC),
            time.astimezone(ZONE).date(),
        )
        for trip, time, probability, version in trips.predicted(
            "trip, event_time, probability, model_version", days(9, 10)
        )
    ]
    columns = "trip, probability, model_version, is_late, event_time, event_date::DATE"
    for reader, rows in shared.read("shop/arrive", columns).items():
        assert rows == sorted(wanted), reader


def test_publishing_twice_changes_nothing(trips, shared):
    use_case = trips.declare("twice", table="others.shop.twice")
    first = trips.publish(use_case, days(9, 11))
    rows = shared.read("shop/twice", "*")
    again = trips.publish(use_case, days(9, 11))
    assert shared.read("shop/twice", "*") == rows
    assert again.windows == first.windows
    assert again.written.changed == frozenset()


def test_a_correction_brings_back_its_partition_alone(trips, shared):
    use_case = trips.declare("corrected", table="others.shop.corrected")
    trips.publish(use_case, days(9, 14))
    with trips.opposite(use_case, days(11, 11)):
        assert trips.due(use_case) == [11]
        trips.publish(use_case, days(11, 11))
        assert trips.due(use_case) == []
        for reader, rows in shared.read(
            "shop/corrected", "DISTINCT model_version, event_date::DATE"
        ).items():
            days_of_2 = [day for version, day in rows if version == 2]
            assert (len(rows), days_of_2) == (6, [date(2024, 3, 11)]), reader


def test_a_rollback_recomputes_what_the_replaced_version_published(trips, shared):
    use_case = trips.declare("rolled_back", table="others.shop.rolled_back")
    with trips.opposite(use_case, days(12, 14)):
        trips.publish(use_case, days(9, 14))
        plan = trips.plan_rollback(use_case)
        (affected,) = plan.affected.published.values()
        assert [window.start.day for window in affected] == [12, 13, 14]
        trips.roll_back(use_case, plan)
    found = shared.read("shop/rolled_back", "DISTINCT model_version")
    assert set(map(tuple, found.values())) == {((1,),)}


def test_a_partition_that_lost_its_predictions_loses_its_rows(trips, shared):
    use_case = trips.declare("emptied", table="others.shop.emptied")
    trips.publish(use_case, days(9, 10))
    with trips.without_predictions(days(10, 10)):
        report = trips.publish(use_case, days(10, 10))
        assert list(report.windows.values()) == [Counted(0, 0)]
        found = shared.read("shop/emptied", "DISTINCT event_date::DATE")
        assert set(map(tuple, found.values())) == {((date(2024, 3, 9),),)}


def test_predictions_are_appended_once_for_each_scoring(trips, shared):
    use_case = trips.declare("appended", table="others.shop.appended", mode="append")
    trips.publish(use_case, days(9, 10))
    trips.publish(use_case, days(9, 10))
    with trips.opposite(use_case, days(10, 10)):
        report = trips.publish(use_case, days(9, 10))
        assert list(report.windows.values()) == [Counted(40, 40), Counted(40, 40)]
    columns = "event_date::DATE, model_version, count(*), count(DISTINCT trip)"
    wanted = [(date(2024, 3, 9), 1, 40, 40), (date(2024, 3, 10), 1, 40, 40)]
    wanted.append((date(2024, 3, 10), 2, 40, 40))
    for reader, rows in shared.read("shop/appended", columns, "GROUP BY ALL").items():
        assert rows == wanted, reader


def test_rows_are_updated_by_key_and_the_later_event_time_wins(trips, shared):
    columns = """["coalesce(city, 'none') AS town", event_time, probability]"""
    declared = {"mode": "upsert", "key": "[town]", "columns": columns}
    use_case = trips.declare("newest", table="others.shop.newest", **declared)
    if shared.kind == "parquet":
        with pytest.raises(TargetError, match=r"Parquet files have no keys .* `mode: replace`"):
            trips.publish(use_case, days(9, 9))
        return
    for window_range in (days(10, 10), days(9, 9), days(9, 11)):
        report = trips.publish(use_case, window_range)
        assert all(counted.is_complete for counted in report.windows.values())
    for reader, found in shared.read("shop/newest", "count(*), min(event_time)").items():
        ((count, earliest),) = found
        assert (count, earliest >= days(11, 11).start) == (4, True), reader


def test_rows_without_a_key_are_refused(trips, shared):
    declared = {"mode": "upsert", "key": "[city]", "columns": "[city, event_time]"}
    use_case = trips.declare("keyless", table="others.shop.keyless", **declared)
    if shared.kind != "parquet":
        with pytest.raises(TargetError, match=r"1 rows .* null in their key, city; .* coalesce"):
            trips.publish(use_case, days(9, 14))


def test_features_are_published_as_predictions_are(trips, shared):
    use_case = trips.declared({"paces": {"table": "others.shop.paces", "features": "pace"}})
    report = trips.publish(use_case, days(9, 10))
    assert list(report.windows.values()) == [Counted(40, 40), Counted(40, 40)]
    assert trips.due(use_case) == [11, 12, 13, 14]
    with trips.lake.cursor() as cursor:
        wanted = cursor.execute(
            "SELECT trip, event_time, pace FROM lake.trips.pace_features "
            "WHERE event_time >= ? AND event_time < ? ORDER BY ALL",
            [days(9, 10).start, days(9, 10).end],
        ).fetchall()
    for reader, rows in shared.read("shop/paces", "trip, event_time, pace").items():
        assert rows == wanted, reader
