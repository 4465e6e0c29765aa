"""Rows that come by request are refused for the rules for which landed ones are quarantined."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from ml_platform.errors import RuleBroken
from ml_platform.features import InputRules, RequestReader
from ml_platform.features.keys import plain_text
from ml_platform.sources.contract import Contract
from ml_platform.sources.reading import Batch
from ml_platform.spec.use_case import UseCase
from tests import trips_use_case as trips

Declared = Callable[..., UseCase]
SPEC = trips.SPEC
RULES = (
    "distance between 1 and 50",
    "seats <> 3 and paid",
    # Of 7 it fails where the city is not a number, and is null where there is no city.
    "CASE WHEN distance = 7 THEN CAST(city AS INTEGER) > 0 END",
    "hour(started_at) < 20",
)
VALUES: list[dict[str, Any]] = [
    {},
    {"distance": 0.5},
    {"distance": float("nan")},
    {"distance": None, "city": None},
    {"distance": 7.0, "city": "12"},
    {"distance": 7.0, "city": "twelve"},
    {"distance": 7.0, "city": None},
    {"seats": 3.0},
    {"seats": None},
    {"paid": False},
    {"paid": None},
    {"seats": 3.0, "paid": None},
    {"started_at": "2024-03-11 20:00:00"},
    {"started_at": "2024-03-12T01:00:00Z"},
    {"distance": 51.0, "seats": 3.0},
]


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Declared:
    """The use case of trips with rules, and other request columns."""

    def declare(
        columns: str = "city, distance, seats, paid", rules: tuple[str, ...] = RULES
    ) -> UseCase:
        spec = SPEC.replace("[city, distance]", f"[{columns}]")
        more = f"delay: DOUBLE, seats: INTEGER, paid: BOOLEAN}}\n    rules: {list(rules)}\n"
        monkeypatch.setattr(trips, "SPEC", spec.replace("delay: DOUBLE}\n", more))
        return trips.write_folder(tmp_path, "binary")

    return declare


def row(**values: Any) -> dict[str, Any]:
    known = {"trip": 7, "started_at": "2024-03-11 07:30:00", "city": "Boston", "distance": 3.5}
    return {**known, "seats": 2.0, "paid": True, **values}


def quarantined(use_case: UseCase, rows: list[dict[str, Any]]) -> list[str | None]:
    """The first rule that each row breaks as it lands."""
    source = use_case.sources["trips"]
    lines = [[plain_text(each.get(column)) for column in source.columns] for each in rows]
    with duckdb.connect() as connection:
        connection.execute(f"SET TimeZone = '{use_case.timezone}'")
        connection.execute("CREATE TABLE lines (__file INTEGER, __row INTEGER, __values VARCHAR[])")
        for number, line in enumerate(lines):
            connection.execute("INSERT INTO lines VALUES (0, ?, ?)", [number, line])
        contract = Contract(connection, source, use_case.calendar.start)
        values = {column: f"__values[{n}]" for n, column in enumerate(source.columns, start=1)}
        judged = contract.judged(Batch("lines", values, "''"))
        reasons = connection.execute(f"SELECT __reason FROM ({judged}) ORDER BY __row").fetchall()
    first = [reason.split("; ")[0] if reason else None for (reason,) in reasons]
    assert all(each is None or each.startswith("breaks the rule: ") for each in first)
    return [each and each.removeprefix("breaks the rule: ") for each in first]


def refused(judge: Callable[[], object]) -> str | None:
    try:
        judge()
    except RuleBroken as error:
        return error.rule
    return None


def test_by_key_what_is_refused_is_what_would_be_quarantined(declared: Declared) -> None:
    case = declared()
    rows = [row(**values) for values in VALUES]
    expected = quarantined(case, rows)
    assert {*expected} == {None, *RULES}
    reader = RequestReader(case)
    assert [refused(lambda one=one: reader.read([one])) for one in rows] == expected
    assert [refused(lambda one=one: reader.frame([one])) for one in rows] == expected
    with pytest.raises(RuleBroken, match=r"^column 'distance': row 1 breaks") as caught:
        reader.read(rows)
    assert (caught.value.row, caught.value.columns) == (1, ("distance",))
    reader.close()


def inputs(*rows: dict[str, Any]) -> dict[str, Any]:
    """Rows as columns of a model: float64 with NaN, text with None."""
    numbers = {
        name: np.array([np.nan if r[name] is None else float(r[name]) for r in rows])
        for name in ("distance", "seats", "paid")
    }
    return {"city": np.array([r["city"] for r in rows], dtype=object), **numbers}


def test_by_column_so_is_what_the_rules_without_a_time_say(declared: Declared) -> None:
    case = declared(rules=RULES[:3])
    rows = [row(**values) for values in VALUES]
    rules = InputRules(case)
    found = [refused(lambda one=one: rules.check(inputs(one))) for one in rows]
    assert found == quarantined(case, rows)
    with pytest.raises(RuleBroken, match="row 2 breaks the rule 'seats <> 3 and paid' of trips"):
        rules.check(inputs(row(), row(), row(paid=False), row(distance=0)))
    # A champion without a column is not asked about it.
    rules.check({"distance": inputs(row())["distance"]})
    assert refused(lambda: rules.check({"distance": np.array([0.5])})) == RULES[0]
    rules.close()


COMPARED = ("distance between 1 and 50", "0 < seats and (seats <> 3)", "paid", "7.0 >= distance")


@pytest.mark.parametrize("rules", [COMPARED[:2], COMPARED, ("distance = 3.5", "seats <= 2")])
def test_what_only_compares_numbers_is_judged_alike(
    declared: Declared, rules: tuple[str, ...]
) -> None:
    case = declared(rules=rules)
    amounts = [None, float("nan"), -1.0, -0.0, 0.5, 1, 3, 3.5, 7.0, 7.000001, 50, 51, 1e300]
    rows = [row(distance=d, seats=s) for d in amounts for s in (None, -3.0, 0, 2, 3, 4)]
    judge = InputRules(case)
    found = [refused(lambda one=one: judge.check(inputs(one))) for one in rows]
    assert found == quarantined(case, rows)
    judge.close()


def test_duckdb_is_not_asked_about_rows_that_plainly_hold(declared: Declared) -> None:
    rules = InputRules(declared(rules=COMPARED[:2]))
    rules.check(inputs(row(), row(distance=None, seats=4)))
    rules.close()
    rules.check(inputs(row(), row(distance=None, seats=4)))
    with pytest.raises(duckdb.ConnectionException):
        rules.check(inputs(row(), row(seats=3)))


def test_a_column_that_is_computed_is_not_the_sources_whatever_its_name(declared: Declared) -> None:
    rules = InputRules(declared('city, "-distance AS distance"', ("distance > 0", "city <> ''")))
    rules.check({"city": np.array(["Boston"], dtype=object), "distance": np.array([-3.5])})
    assert refused(lambda: rules.check(inputs(row(city="")))) == "city <> ''"
    rules.close()


def test_a_rule_about_what_nobody_sends_is_not_judged(declared: Declared) -> None:
    case = declared("city", ("delay < 60", "city > '' or delay.abs() > 60", "1 > 2"))
    reader, rules = RequestReader(case), InputRules(case)
    assert reader.read([row(distance=-1)]).inputs["city"].tolist() == ["Boston"]
    rules.check({"city": np.array(["Boston"], dtype=object)})
    reader.close()
    rules.close()
