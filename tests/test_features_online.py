"""Features looked up online, on a small use case with values of every sort."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import ExampleRefused, NotPublished
from ml_platform.features import (
    OnlineFeatures,
    OnlineStore,
    assemble,
    compute_features,
    online_features,
    publish,
    request_columns,
)
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests import trips_use_case as trips

PACE = """\
SELECT
    trip,
    started_at AS event_time,
    distance / 60 AS pace,
    CASE WHEN delay > 5 THEN city END AS place,
    CAST(started_at AS DATE) AS day,
    started_at + INTERVAL 1 MINUTE AS soon,
    CAST(delay AS DECIMAL(9, 2)) AS money,
    delay > 5 AS late,
    CAST(NULL AS DOUBLE) AS nothing,
    -delay AS "odd name"
FROM trips
"""
DAYS = trips.days(1, 3)


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    folder = trips.write_folder(tmp_path, "binary").folder
    (folder / "features" / "pace.sql").write_text(PACE)
    return load_use_case(folder)


@pytest.fixture
def lake(tmp_path: Path, use_case: UseCase) -> Iterator[Lake]:
    lake = Lake(trips.settings(tmp_path))
    trips.land(lake, use_case, trips.trips(1, 3), DAYS)
    yield lake
    lake.close()


def offline(lake: Lake, use_case: UseCase) -> pd.DataFrame:
    with lake.cursor(use_case.timezone) as cursor:
        return assemble(cursor, lake, use_case, DAYS, lake.snapshot(cursor))


def test_values_of_every_type_are_those_of_the_join(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    publish(lake, online_store, use_case, "pace", DAYS)
    asked = request_columns(use_case, trips.trips(1, 3))
    found = asked.join(online_features(online_store, use_case, asked))
    pd.testing.assert_frame_equal(found, offline(lake, use_case), check_exact=True)
    assert found["pace__place"].isna().any()


def test_the_index_and_every_way_to_write_a_key_are_kept(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    publish(lake, online_store, use_case, "pace", DAYS)
    rows = trips.trips(1, 3).tail(3)[["trip", "started_at"]]
    asked = rows.rename(columns={"started_at": "event_time"}).set_index(pd.Index(list("xyz")))
    expected = online_features(online_store, use_case, asked)
    assert list(expected.index) == list("xyz")
    assert expected["pace__late"].notna().all()
    for kind in (str, float, object):
        written = asked.assign(trip=asked["trip"].astype(kind))
        pd.testing.assert_frame_equal(online_features(online_store, use_case, written), expected)
    elsewhere = asked.assign(event_time=asked["event_time"].dt.tz_convert("Asia/Tokyo"))
    pd.testing.assert_frame_equal(online_features(online_store, use_case, elsewhere), expected)


def test_a_row_is_joined_up_to_its_time_to_live_and_not_beyond(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    publish(lake, online_store, use_case, "pace", DAYS)
    first = trips.trips(1, 3).iloc[-1]
    ages = [timedelta(0), timedelta(hours=24), timedelta(hours=24, microseconds=1)]
    asked = pd.DataFrame(
        {
            "trip": first["trip"],
            "event_time": [
                first["started_at"] - timedelta(microseconds=1),
                *(first["started_at"] + age for age in ages),
            ],
        }
    )
    found = online_features(online_store, use_case, asked)["pace__late"]
    assert found.isna().tolist() == [True, False, False, True]
    features = OnlineFeatures(online_store, use_case)
    moments = asked["event_time"].dt.as_unit("us").astype("int64").tolist()
    looked_up = features.look_up({"trip": [str(first["trip"])] * 4}, moments)
    assert looked_up.outcomes == {"pace": ["missing", "found", "found", "expired"]}
    assert features.look_up({"trip": [None, "x"]}, moments[:2]).outcomes["pace"] == ["missing"] * 2
    features.close()


def test_nothing_is_found_for_a_key_that_is_missing_or_unknown(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    publish(lake, online_store, use_case, "pace", DAYS)
    known = trips.trips(1, 3).iloc[-1]["trip"]
    asked = pd.DataFrame({"trip": [known, np.nan, -1], "event_time": trips.at(4)})
    found = online_features(online_store, use_case, asked)
    assert found["pace__soon"].isna().tolist() == [False, True, True]
    assert [value is None for value in found["pace__place"]][1:] == [True, True]
    none = online_features(online_store, use_case, asked.head(0))
    assert list(none.dtypes) == list(found.dtypes)


def test_a_feature_that_is_new_has_no_value_in_rows_stored_before(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    publish(lake, online_store, use_case, "pace", DAYS)
    file = use_case.folder / "features" / "pace.sql"
    file.write_text(PACE.replace("FROM trips", ', 1 AS "one" FROM trips'))
    wider = load_use_case(use_case.folder)
    asked = request_columns(wider, trips.trips(1, 3))
    before = online_features(online_store, wider, asked)
    assert before["pace__one"].isna().all()
    assert before["pace__late"].notna().all()

    compute_features(lake, wider, "pace", DAYS, trips.COMMIT)
    publish(lake, online_store, wider, "pace", DAYS)
    found = asked.join(online_features(online_store, wider, asked))
    pd.testing.assert_frame_equal(found, offline(lake, wider), check_exact=True)
    assert (found["pace__one"] == 1).all()


def test_partitions_that_lack_come_along_with_the_next_one(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    first = publish(lake, online_store, use_case, "pace", trips.days(3, 3))
    assert {w.start.day: rows for w, rows in first.rows.items()} == {1: 40, 2: 40, 3: 40}
    again = publish(lake, online_store, use_case, "pace", trips.days(3, 3))
    assert {w.start.day: rows for w, rows in again.rows.items()} == {3: 40}
    assert first.newest == again.newest == trips.trips(1, 3)["started_at"].max()


def test_an_empty_partition_is_stored_as_empty(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    nothing = publish(lake, online_store, use_case, "pace", trips.days(9, 9))
    assert nothing.newest == trips.trips(1, 3)["started_at"].max()
    with lake.cursor() as cursor:
        cursor.execute("DELETE FROM lake.trips.pace_features")
    publish(lake, online_store, use_case, "pace", DAYS)
    assert online_store.count("trips", "pace") == 0


def test_what_cannot_be_looked_up_is_an_error(
    lake: Lake, use_case: UseCase, online_store: OnlineStore
) -> None:
    asked = pd.DataFrame({"trip": [1], "event_time": [trips.at(3)]})
    with pytest.raises(NotPublished, match="no features of trips"):
        online_features(online_store, use_case, asked)
    publish(lake, online_store, use_case, "pace", DAYS)
    with pytest.raises(ExampleRefused, match="trip: is missing; features are joined by it"):
        online_features(online_store, use_case, asked[["event_time"]])
    with pytest.raises(ExampleRefused, match="event_time: should be a time with a zone"):
        online_features(online_store, use_case, asked.assign(event_time=pd.Timestamp("2024-03-01")))
    untimed = pd.Series([pd.NaT], dtype="datetime64[us, UTC]")
    with pytest.raises(ExampleRefused, match="event_time: should be a time with a zone"):
        online_features(online_store, use_case, asked.assign(event_time=untimed))
    with pytest.raises(ExampleRefused, match="trip: 'seven' is not BIGINT"):
        online_features(online_store, use_case, asked.assign(trip="seven"))
