"""Rows to predict that come from outside: types, join keys and request columns by the same SQL."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import ExampleRefused, QueryFailed
from ml_platform.features import RequestReader, assemble, needed_columns, request_columns
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests import trips_use_case as trips

Changed = Callable[[str], UseCase]
SPEC = trips.SPEC


@pytest.fixture
def changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Changed:
    """The use case of trips with other request columns."""

    def change(columns: str) -> UseCase:
        spec = SPEC.replace("columns: [city, distance]", f"columns: {columns}")
        monkeypatch.setattr(trips, "SPEC", spec)
        return trips.write_folder(tmp_path, "binary")

    return change


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path, "binary")


@pytest.fixture
def reader(use_case: UseCase) -> Iterator[RequestReader]:
    reader = RequestReader(use_case)
    yield reader
    reader.close()


def row(**values: Any) -> dict[str, Any]:
    known = {"trip": 7, "started_at": "2024-03-10 07:30:00", "city": "Boston", "distance": 3.5}
    return {**known, **values}


def test_a_caller_gives_only_what_is_needed(use_case: UseCase) -> None:
    assert needed_columns(use_case) == {
        "trip": "BIGINT",
        "started_at": "TIMESTAMPTZ",
        "city": "VARCHAR",
        "distance": "DOUBLE",
    }


def test_columns_are_those_that_the_expressions_read(changed: Changed) -> None:
    case = changed('["upper(CITY) AS town", "hour(started_at) AS hour"]')
    assert list(needed_columns(case)) == ["trip", "started_at", "city"]
    case = changed("[\"COLUMNS('dist.*')\"]")
    assert list(needed_columns(case)) == ["trip", "started_at", "city", "distance", "delay"]


def test_keys_moments_and_inputs_of_rows(reader: RequestReader) -> None:
    # Without an offset, a time is one of the use case's zone; clocks went forward that day.
    found = reader.read([row(), row(trip="8", started_at="2024-03-10T12:00:00Z", distance="4")])
    half_past_seven = datetime(2024, 3, 10, 11, 30, tzinfo=UTC)
    noon = datetime(2024, 3, 10, 12, tzinfo=UTC)
    assert found.moments == [int(t.timestamp() * 1e6) for t in (half_past_seven, noon)]
    assert found.keys == {"trip": ["7", "8"]}
    assert found.inputs["city"].tolist() == ["Boston", "Boston"]
    assert found.inputs["city"].dtype == object
    assert found.inputs["distance"].tolist() == [3.5, 4.0]
    assert found.inputs["distance"].dtype == np.float64


def test_missing_values_are_nan_and_none(reader: RequestReader) -> None:
    found = reader.read(
        [row(trip=None, city=None, distance=None), row(distance=float("nan"), city=pd.NA)]
    )
    assert found.keys == {"trip": [None, "7"]}
    assert found.inputs["city"].tolist() == [None, None]
    assert np.isnan(found.inputs["distance"]).all()


def test_no_rows_are_no_rows(reader: RequestReader) -> None:
    found = reader.read([])
    assert found.moments == []
    assert found.keys == {"trip": []}
    assert [(len(v), v.dtype) for v in found.inputs.values()] == [(0, object), (0, np.float64)]


def test_the_frame_is_that_of_the_join(tmp_path: Path, use_case: UseCase) -> None:
    lake = Lake(trips.settings(tmp_path))
    rows = trips.trips(1, 3)
    trips.land(lake, use_case, rows, trips.days(1, 3))
    with lake.cursor(use_case.timezone) as cursor:
        frame = assemble(cursor, lake, use_case, trips.days(1, 3), lake.snapshot(cursor))
    lake.close()
    found = request_columns(use_case, rows)
    assert found.index.equals(rows.index)
    pd.testing.assert_frame_equal(found, frame[list(found.columns)], check_exact=True)


def test_values_keep_their_last_bit(reader: RequestReader) -> None:
    distances = [0.1 + 0.2, 5e-324, -0.0, 1e308, 2**53 + 1]
    found = reader.read([row(distance=distance) for distance in distances])
    assert [v.hex() for v in found.inputs["distance"].tolist()] == [
        float(distance).hex() for distance in distances
    ]


def test_a_join_key_that_is_computed_is_computed_here_too(changed: Changed) -> None:
    case = changed('["upper(city) AS trip_town", "known_at - started_at AS ahead", "distance"]')
    with_known_at = RequestReader(case)
    found = with_known_at.read([row()])
    assert found.inputs["trip_town"].tolist() == ["BOSTON"]
    assert found.inputs["ahead"].tolist() == ["00:00:00"]
    with_known_at.close()


@pytest.mark.parametrize(
    ("wrong", "column", "problem"),
    [
        ({"distance": "far"}, "distance", "'far' is not DOUBLE"),
        ({"trip": "1.5"}, "trip", "'1.5' is not BIGINT"),
        ({"trip": True}, "trip", "'true' is not BIGINT"),
        ({"started_at": "yesterday"}, "started_at", "'yesterday' is not TIMESTAMP WITH TIME ZONE"),
        ({"started_at": ""}, "started_at", "'' is not TIMESTAMP WITH TIME ZONE"),
        ({"started_at": None}, "started_at", "is missing; a row to predict has an event time"),
        ({"city": ["Boston"]}, "city", "list is not a single value"),
        ({"city": "\udfff"}, "city", "'\\udfff' is not text"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_column(
    reader: RequestReader, wrong: dict[str, Any], column: str, problem: str
) -> None:
    for read in reader.read, reader.frame:
        with pytest.raises(ExampleRefused) as caught:
            read([row(), row(**wrong)])
        assert (caught.value.column, caught.value.problem) == (column, problem)
    assert reader.read([row()]).keys == {"trip": ["7"]}


def test_a_row_that_lacks_a_column_is_refused(reader: RequestReader) -> None:
    lacking = row()
    del lacking["city"]
    with pytest.raises(ExampleRefused, match="city: is missing; give every row a value of it"):
        reader.read([row(), lacking])


def test_an_expression_that_fails_is_an_error(changed: Changed) -> None:
    reader = RequestReader(changed('["CAST(city AS INTEGER) AS zip", "distance"]'))
    with pytest.raises(QueryFailed, match=r"trips examples.columns: .*'Boston' to INT32"):
        reader.read([row()])
    assert reader.read([row(city="12345")]).inputs["zip"].tolist() == [12345.0]
    reader.close()


def test_texts_cannot_become_sql(reader: RequestReader) -> None:
    text = "'); DROP TABLE x; --\x00\"\\ é 漢 \U0001f600"
    assert reader.read([row(city=text)]).inputs["city"].tolist() == [text]


def test_threads_do_not_mix_their_rows(reader: RequestReader) -> None:
    wrong: list[object] = []

    def ask(number: int) -> None:
        for _ in range(50):
            found = reader.read([row(trip=number)] * number)
            if found.keys["trip"] != [str(number)] * number:
                wrong.append(found)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
