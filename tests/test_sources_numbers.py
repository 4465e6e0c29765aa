"""A number that is none: NaN is a missing value, an infinite one breaks the contract."""

import math
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.errors import ExampleRefused, RequestRefused
from ml_platform.features import request_columns
from ml_platform.sources.contract import failed_sql, type_names, typed_sql
from ml_platform.storage import Lake
from tests.test_sources_ingest import HEADER, Rides

MISSING = ("nan", "NaN", "NAN", "-nan")
INFINITE = ("inf", "-inf", "Infinity", "-Infinity", "1e999")


@pytest.fixture
def rides(tmp_path: Path, lake: Lake) -> Rides:
    made = Rides(tmp_path / "rides", lake)
    made.declare('rules: ["distance > 0"]')
    return made


def in_csv(rides: Rides, distances: list[str]) -> None:
    lines = [f"r{n},2024-03-01 09:00,{text},1" for n, text in enumerate(distances)]
    rides.land("a.csv", HEADER + "\n".join(lines) + "\n")


def in_json_lines(rides: Rides, distances: list[str]) -> None:
    rides.declare('rules: ["distance > 0"]', files="*.jsonl")
    # Bare, as Python's own encoder writes them, where they can be; else as texts.
    bare = {"nan": "NaN", "NAN": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    lines = [
        f'{{"ride": "r{n}", "began": "2024-03-01 09:00", "distance": {bare.get(text, text)}, '
        '"seats": 1}'
        for n, text in enumerate(distances)
        if text != "-nan"
    ]
    rides.land("a.jsonl", "\n".join(lines) + "\n")


def in_parquet(rides: Rides, distances: list[str]) -> None:
    rides.declare('rules: ["distance > 0"]', files="*.parquet")
    rides.land("a.parquet", b"")
    pd.DataFrame(
        {
            "ride": [f"r{n}" for n in range(len(distances))],
            "began": pd.Timestamp("2024-03-01T09:00:00Z"),
            "distance": [float(text) for text in distances],
            "seats": 1,
        }
    ).to_parquet(rides.landing / "a.parquet")


FORMATS = (in_csv, in_json_lines, in_parquet)


@pytest.mark.parametrize("land", FORMATS)
def test_nan_is_a_missing_value_which_breaks_no_rule(
    rides: Rides, land: Callable[[Rides, list[str]], None]
) -> None:
    land(rides, [*MISSING, "2.5"])
    (counts,) = rides.counts(rides.ingest()).values()
    assert counts[2] == 0
    distances = [distance for (distance,) in rides.rides("distance")]
    assert set(distances) == {None, 2.5}


@pytest.mark.parametrize("land", FORMATS)
def test_an_infinite_number_is_quarantined_also_where_no_rule_forbids_it(
    rides: Rides, land: Callable[[Rides, list[str]], None]
) -> None:
    land(rides, [*INFINITE, "2.5"])
    (counts,) = rides.counts(rides.ingest()).values()
    assert counts == (6, 1, 5)
    assert rides.rides("distance") == [(2.5,)]
    for _, _, reason in rides.reasons():
        assert reason.startswith("distance: '")
        assert reason.endswith("' is infinite")


def test_nan_is_missing_in_columns_of_whole_numbers_and_decimals_too(rides: Rides) -> None:
    # As data frames write whole numbers of which some are missing.
    rides.declare(
        columns="{ride: VARCHAR, began: TIMESTAMPTZ, seats: INTEGER, paid: 'DECIMAL(9,2)'}"
    )
    rides.land("a.csv", "ride,began,seats,paid\nr1,2024-03-01 09:00,nan,NaN\n")
    assert rides.counts(rides.ingest()) == {"2024-03-01": (1, 1, 0)}
    assert rides.rides("seats, paid") == [(None, None)]
    rides.land("b.csv", "ride,began,seats,paid\nr2,2024-03-01 09:00,inf,1\n")
    rides.ingest()
    assert [reason for _, _, reason in rides.reasons()] == ["seats: 'inf' is infinite"]


def test_a_row_that_is_asked_about_follows_the_same_rule(rides: Rides) -> None:
    rides.declare()
    spec = rides.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace('["1 AS one"]', "[distance]"))
    from ml_platform.spec.loading import load_use_case

    case = load_use_case(rides.folder)
    row = {"ride": "r1", "began": "2024-03-01T09:00:00Z"}
    for missing in ("nan", math.nan, None):
        found = request_columns(case, [{**row, "distance": missing}])
        assert found["distance"].isna().all()
    for infinite in ("inf", math.inf, -math.inf, "1e999"):
        with pytest.raises((ExampleRefused, RequestRefused), match="distance"):
            request_columns(case, [{**row, "distance": infinite}])


@pytest.mark.parametrize("kind", ["DOUBLE", "FLOAT", "BIGINT", "DECIMAL(9,2)"])
def test_the_rule_is_one_of_types_not_of_formats(lake: Lake, kind: str) -> None:
    def judged(text: str) -> tuple[object, bool]:
        with lake.cursor() as cursor:
            (name,) = type_names(cursor, {"a": kind}).values()
            typed = typed_sql("raw", name)
            row = cursor.execute(
                f"SELECT typed, {failed_sql('raw', 'typed', name)} "
                f"FROM (SELECT raw, {typed} AS typed FROM (SELECT ?::VARCHAR AS raw))",
                [text],
            ).fetchone()
        assert row is not None
        return row[0], row[1]

    for text in MISSING:
        assert judged(text) == (None, False), text
    for text in (*INFINITE, "twelve"):
        assert judged(text) == (None, True), text
    assert judged("12") == (12, False)
