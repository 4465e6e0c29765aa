"""Predictions in tables of others: on SQLite, on PostgreSQL and on MariaDB."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from ml_platform.impact import version_impact
from ml_platform.publish import Counted
from ml_platform.status import read_costs
from tests.database_servers import Database
from tests.published_trips import Published, published_trips
from tests.trips_use_case import days

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trips(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    made = published_trips(tmp_path_factory.mktemp("published"), database)
    yield made
    made.lake.close()


def test_a_table_holds_the_predictions_their_examples_and_what_is_decided(trips):
    use_case = trips.declare("arrive")
    report = trips.publish(use_case, days(9, 10))
    assert list(report.windows.values()) == [Counted(40, 40), Counted(40, 40)]
    rows = trips.database.run(
        "SELECT trip, probability, model_version, is_late, event_time FROM arrive "
        "ORDER BY event_time"
    )
    wanted = trips.predicted("event_time, trip, probability, model_version", days(9, 10))
    assert [row[:3] for row in rows] == [row[1:] for row in wanted]
    assert [bool(row[3]) for row in rows] == [row[2] > 0.4 for row in wanted]
    assert [_moment(row[4]) for row in rows] == [
        row[0].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") for row in wanted
    ]


def test_publishing_twice_changes_nothing(trips):
    use_case = trips.declare("twice")
    first = trips.publish(use_case, days(9, 11))
    rows = trips.database.run("SELECT * FROM twice ORDER BY trip")
    again = trips.publish(use_case, days(9, 11))
    assert trips.database.run("SELECT * FROM twice ORDER BY trip") == rows
    assert again.windows == first.windows
    assert again.written.changed == frozenset()


def test_what_a_version_touched_includes_what_was_published(trips):
    use_case = trips.declare("touched")
    trips.publish(use_case, days(9, 10))
    found = version_impact(trips.lake, trips.registry, use_case, 1)
    published = found.tables["published_touched"]
    assert {window.start.day: rows for window, rows in published.items()} == {9: 1, 10: 1}


def test_publishing_costs_what_was_published_and_not_what_the_lake_notes_of_it(trips):
    use_case = trips.declare("counted_up")
    before = datetime.now(UTC)
    trips.publish(use_case, days(9, 11))
    (cost,) = read_costs(trips.lake, use_case, before)
    assert (cost.table, cost.rows, cost.runs) == ("published_counted_up", 120, 1)
    assert 0 < cost.seconds <= (datetime.now(UTC) - before).total_seconds()
    # Three 8-byte numbers, a version, a bit, and a city with its offset.
    assert 120 * 28 < cost.bytes < 120 * 60
    # A partition that is published again because its neighbour is, is brought there again.
    with trips.opposite(use_case, days(11, 11)):
        trips.publish(use_case, days(10, 11))
        costs = read_costs(trips.lake, use_case, before)
    (again,) = (each for each in costs if each.table == cost.table)
    assert again.rows == 120 + 80


def test_a_correction_brings_back_its_partition_alone(trips):
    use_case = trips.declare("corrected")
    trips.publish(use_case, days(9, 14))
    assert trips.due(use_case) == []
    with trips.opposite(use_case, days(11, 11)):
        assert trips.due(use_case) == [11]
        trips.publish(use_case, days(11, 11))
        assert trips.due(use_case) == []
        versions = trips.database.run(
            "SELECT DISTINCT model_version, trip / 10000 FROM corrected ORDER BY 1"
        )
        assert {version for version, _ in versions} == {1, 2}
        ((count,),) = trips.database.run("SELECT count(*) FROM corrected WHERE model_version = 2")
        assert count == 40
    assert trips.due(use_case) == [11]


def test_a_rollback_recomputes_exactly_what_the_replaced_version_published(trips):
    use_case = trips.declare("rolled_back")
    with trips.opposite(use_case, days(12, 14)):
        trips.publish(use_case, days(9, 14))
        plan = trips.plan_rollback(use_case)
        table = "published_rolled_back"
        assert [w.start.day for w in plan.affected.published[table]] == [12, 13, 14]
        trips.roll_back(use_case, plan)
    rows = trips.database.run("SELECT model_version, count(*) FROM rolled_back GROUP BY 1")
    assert rows == [(1, 240)]
    assert not trips.plan_affected(use_case)


def test_a_partition_that_lost_its_predictions_loses_its_rows(trips):
    use_case = trips.declare("emptied")
    trips.publish(use_case, days(9, 10))
    with trips.without_predictions(days(10, 10)):
        assert trips.due(use_case) == [10, 11, 12, 13, 14]
        trips.publish(use_case, days(10, 10))
        ((count,),) = trips.database.run("SELECT count(*) FROM emptied")
        assert count == 40


def _moment(value: object) -> str:
    """A time of any database, in UTC."""
    text = str(value).removesuffix("+00:00")
    return text if "." in text else f"{text}.000000"
