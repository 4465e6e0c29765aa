"""Sources of many columns: their values are judged together, and as they are one by one."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.sources import contract
from ml_platform.sources.arrivals import arrivals
from ml_platform.storage import Lake
from tests.test_sources_ingest import COMMIT, HEADER, Rides, Row

KINDS = {
    "t": "DOUBLE", "n": "INTEGER", "name": "VARCHAR", "flag": "BOOLEAN", "day": "DATE",
    "price": "DECIMAL(5, 2)", "ratio": "FLOAT", "number": "HUGEINT", "its 'quote'": "UTINYINT",
}  # fmt: skip
TEXTS = ("1", "0.5", "-3", "1,5", "1.234,5", "nan", "inf", "-inf", "1e999", "x" * 200, "true",
         "2024-02-30", "it's", "[1]", "300")  # fmt: skip


@pytest.fixture
def rides(tmp_path: Path, shared_lake: Lake) -> Iterator[Rides]:
    yield Rides(tmp_path / "rides", shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


def columns(more: dict[str, str]) -> str:
    return json.dumps({"ride": "VARCHAR", "began": "TIMESTAMPTZ", **more})


def in_csv(rides: Rides, rows: pd.DataFrame) -> None:
    rides.land("a.csv", rows.to_csv(index=False, na_rep="NA"))


def in_csv_with_commas(rides: Rides, rows: pd.DataFrame) -> None:
    rides.declare('csv: {decimal: ",", thousands: "."}', columns=columns(KINDS))
    in_csv(rides, rows)


def in_json_lines(rides: Rides, rows: pd.DataFrame) -> None:
    rides.declare(files="*.jsonl", columns=columns(KINDS))
    rides.land("a.jsonl", rows.to_json(orient="records", lines=True))


def in_parquet(rides: Rides, rows: pd.DataFrame) -> None:
    rides.declare(files="*.parquet", columns=columns(KINDS))
    rides.land("a.parquet", b"")
    numbers = pd.to_numeric(rows["t"], errors="coerce")
    rows.assign(t=numbers, n=numbers, ratio=numbers).to_parquet(rides.landing / "a.parquet")


@pytest.mark.parametrize("land", [in_csv, in_csv_with_commas, in_json_lines, in_parquet])
def test_values_are_judged_together_as_one_by_one(
    rides: Rides,
    land: Callable[[Rides, pd.DataFrame], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each row has every text once more in another column, and one value is missing.
    rows = pd.DataFrame(
        [
            {name: TEXTS[(row + n) % len(TEXTS)] for n, name in enumerate(KINDS)}
            for row in range(len(TEXTS))
        ]
    )
    rows.insert(0, "ride", [f"r{n}" for n in range(len(rows))])
    rows.insert(1, "began", "2024-03-01T09:00:00Z")
    rows.loc[3, "t"] = None
    rides.declare(columns=columns(KINDS))
    land(rides, rows)
    found: list[tuple[list[Row], list[Row]]] = []
    for wide in (1, len(KINDS)):
        monkeypatch.setattr(contract, "WIDE", wide)
        rides.ingest()
        found.append((rides.reasons(), rides.rides("* EXCLUDE (_snapshot)")))
        with rides.lake.cursor() as cursor:
            cursor.execute("DROP SCHEMA lake.rides CASCADE")
    assert found[0][0]
    assert found[0] == found[1]


def test_a_bad_value_in_the_last_of_many_columns_is_said_with_its_line(rides: Rides) -> None:
    names = [f"c{number}" for number in range(150)]
    rides.declare(columns=columns({**dict.fromkeys(names, "DOUBLE"), "seats": "INTEGER"}))
    values = ",".join(["0.5"] * len(names))
    lines = [f"r{row},2024-03-01 09:00,{values},{row}" for row in range(5)]
    lines[3] = lines[3].replace("0.5,3", "half,3.5")
    rides.land("a.csv", "\n".join([",".join(["ride", "began", *names, "seats"]), *lines, ""]))
    assert rides.counts(rides.ingest()) == {"2024-03-01": (5, 4, 1)}
    assert rides.reasons() == [
        ("a.csv", 5, "c149: 'half' is not DOUBLE; seats: '3.5' is not INTEGER")
    ]
    assert rides.rides("ride, c149, _row") == [
        (f"r{row}", 0.5, row + 2) for row in range(5) if row != 3
    ]


def test_required_columns_among_many_are_missing_where_they_are(rides: Rides) -> None:
    names = [f"c{number}" for number in range(150)]
    rides.declare("required: [c20]", columns=columns(dict.fromkeys(names, "DOUBLE")))
    values = ["x" if name in {"c10", "c30"} else "" for name in names]
    header = ",".join(["ride", "began", *names])
    rides.land("a.csv", f"{header}\nr1,2024-03-01 09:00,{','.join(values)}\n")
    rides.ingest()
    ((_, _, reason),) = rides.reasons()
    assert reason == "c10: 'x' is not DOUBLE; c20 is missing; c30: 'x' is not DOUBLE"


def test_a_look_says_all_that_is_wrong_where_no_row_has_a_time(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-02 09:00,x,1\n,?,1,1\n")
    rides.land("b.csv", f"{HEADER}r1,?,x,1\n,,1,1\n")
    found = arrivals(rides.lake, rides.use_case, "rides", COMMIT, datetime.now(UTC))
    assert [rides.use_case.calendar.key(window) for window in found.windows] == ["2024-03-02"]
    noted = rides.query("SELECT file, rows, error FROM landings ORDER BY file")
    assert noted == [
        ("a.csv", 2, None),
        ("b.csv", 0, "none of its 2 rows has a readable began; the first one: "
         "began: '?' is not TIMESTAMPTZ; distance: 'x' is not DOUBLE"),
    ]  # fmt: skip
    rides.ingest()
    assert [row for _, row, _ in rides.reasons()] == [2, 3]


def test_a_look_judges_nothing_but_times(rides: Rides, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    judged = contract.Contract.judged

    def noted(self: contract.Contract, *args: object) -> str:
        asked.append(list(self.columns))
        return judged(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(contract.Contract, "judged", noted)
    rides.land("a.csv", f"{HEADER}r1,2024-03-02 09:00,x,1\n")
    arrivals(rides.lake, rides.use_case, "rides", COMMIT, datetime.now(UTC))
    assert asked == [["began", "known_at"]]
