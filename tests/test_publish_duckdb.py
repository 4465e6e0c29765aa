"""A file of DuckDB, published to through its driver of Arrow Database Connectivity."""

from collections.abc import Iterator

import pytest

from ml_platform.errors import TargetError
from tests.database_servers import duckdb_database
from tests.published_trips import Published, published_trips
from tests.trips_use_case import days


@pytest.fixture(scope="module")
def trips(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    root = tmp_path_factory.mktemp("published")
    made = published_trips(root, duckdb_database(root / "others.duckdb"))
    yield made
    made.lake.close()


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_a_table_holds_the_predictions_and_follows_what_changes(trips, mode):
    use_case = trips.declare(f"by_{mode}", mode=mode)
    shown = f"SELECT trip, probability FROM by_{mode} ORDER BY event_time"
    trips.publish(use_case, days(9, 10))
    before = trips.predicted("trip, probability", days(9, 10))
    assert sorted(trips.database.run(shown)) == before
    with trips.opposite(use_case, days(10, 10)):
        report = trips.publish(use_case, days(9, 10))
        assert all(counted.is_complete for counted in report.windows.values())
        changed = trips.predicted("trip, probability", days(9, 10))
        assert changed != before
        assert sorted(trips.database.run(shown)) == changed


def test_a_partition_is_found_by_an_index(trips):
    trips.publish(trips.declare("indexed"), days(9, 9))
    found = trips.database.run(
        "SELECT expressions FROM duckdb_indexes() WHERE table_name = 'indexed'"
    )
    assert found == [("[event_time]",)]


def test_a_text_that_is_too_long_is_refused(trips):
    use_case = trips.declare("texts", lengths="{city: 3}")
    with pytest.raises(TargetError, match="CHECK constraint failed"):
        trips.publish(use_case, days(9, 9))
    assert trips.database.run("SELECT * FROM texts") == []
