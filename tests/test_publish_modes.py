"""What a partition does to the table of others: upsert by key, and append."""

from collections.abc import Iterator

import pytest

from tests.database_servers import Database
from tests.published_trips import Published, published_trips
from tests.trips_use_case import days

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trips(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), database)
    yield made
    made.lake.close()


def test_an_upsert_keeps_the_latest_prediction_of_each_key_whatever_comes_last(trips):
    columns = "['trip % 3 AS place', event_time, probability, trip]"
    use_case = trips.declare("by_place", mode="upsert", key="[place]", columns=columns)
    for window_range in (days(12, 12), days(9, 10), days(9, 12)):
        report = trips.publish(use_case, window_range)
        assert all(counted.is_complete for counted in report.windows.values())
    newest = trips.predicted("event_time, trip, probability", days(9, 12))[-3:]
    wanted = sorted((trip % 3, trip, probability) for _, trip, probability in newest)
    assert trips.database.run("SELECT place, trip, probability FROM by_place ORDER BY 1") == wanted


def test_an_upsert_leaves_the_rows_of_others(trips):
    use_case = trips.declare("with_others", mode="upsert")
    trips.publish(use_case, days(9, 9))
    trips.database.run(
        "INSERT INTO with_others (trip, event_time) VALUES (7, '2024-03-09 12:00:00')"
    )
    report = trips.publish(use_case, days(9, 9))
    assert [counted.is_complete for counted in report.windows.values()] == [True]
    assert trips.database.run("SELECT count(*) FROM with_others") == [(41,)]


def test_an_upsert_updates_what_was_predicted_anew(trips):
    use_case = trips.declare("updated", mode="upsert")
    trips.publish(use_case, days(9, 9))
    with trips.opposite(use_case, days(9, 9)):
        trips.publish(use_case, days(9, 9))
        found = trips.database.run("SELECT min(model_version), count(*) FROM updated")
        assert found == [(2, 40)]
        rows = trips.database.run("SELECT trip, probability FROM updated ORDER BY trip")
        assert rows == trips.predicted("trip, probability", days(9, 9))


def test_what_is_appended_is_there_once_for_each_scoring(trips):
    use_case = trips.declare("appended", mode="append")
    trips.publish(use_case, days(9, 10))
    report = trips.publish(use_case, days(9, 10))
    assert all(counted.is_complete for counted in report.windows.values())
    assert trips.database.run("SELECT count(*) FROM appended") == [(80,)]
    with trips.opposite(use_case, days(10, 10)):
        trips.publish(use_case, days(9, 10))
        trips.publish(use_case, days(9, 10))
    rows = trips.database.run(
        "SELECT model_version, count(*) FROM appended GROUP BY model_version ORDER BY 1"
    )
    assert rows == [(1, 80), (2, 40)]


def test_what_is_appended_is_never_changed(trips):
    use_case = trips.declare("kept", mode="append")
    trips.publish(use_case, days(9, 9))
    trips.database.run("UPDATE kept SET city = 'seen'")
    trips.publish(use_case, days(9, 9))
    assert trips.database.run("SELECT DISTINCT city FROM kept") == [("seen",)]
