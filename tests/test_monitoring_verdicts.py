"""Whether reported windows passed: what alerts and retraining go by."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from ml_platform.monitoring.verdicts import (
    Streak,
    drift_passed,
    newest_streak,
    performance_passed,
    retraining_verdicts,
    window_verdicts,
)
from ml_platform.spec.modelling import Retrain
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Drift, Monitoring
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.trips_use_case import at, settings, write_folder

Said = list[tuple[int, str, bool | None]]
"""Day, column or metric, and what was said of it."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lake, UseCase]]:
    root = tmp_path_factory.mktemp("verdicts")
    lake = Lake(settings(root))
    monitoring = Monitoring(drift=Drift(share=0.5))
    yield lake, write_folder(root, "binary").model_copy(update={"monitoring": monitoring})
    lake.close()


@pytest.fixture
def world(shared: tuple[Lake, UseCase]) -> Iterator[tuple[Lake, UseCase]]:
    with shared[0].cursor() as cursor:
        cursor.execute("CREATE SCHEMA IF NOT EXISTS lake.trips")
    yield shared
    with shared[0].cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.trips CASCADE")


def store(lake: Lake, table: str, columns: str, rows: list[tuple[Any, ...]]) -> None:
    with lake.cursor() as cursor:
        cursor.execute(f"CREATE TABLE lake.trips.{table} (window_start TIMESTAMP, {columns})")
        for day, *values in rows:
            # A window of New York begins at five in the morning, UTC; from the 10th on at four.
            start = f"2024-03-{day:02d} {'05' if day <= 10 else '04'}:00"
            marks = ", ".join("?" for _ in values)
            cursor.execute(
                f"INSERT INTO lake.trips.{table} VALUES (TIMESTAMP '{start}', {marks})", values
            )


def drifted(lake: Lake, rows: Said) -> None:
    store(lake, "drift_report", "column_name VARCHAR, drifted BOOLEAN", list(rows))


def measured(lake: Lake, rows: list[tuple[int, str, bool | None, str]]) -> None:
    columns = "metric VARCHAR, passed BOOLEAN, revision VARCHAR"
    store(lake, "performance_report", columns, list(rows))


def window(day: int) -> Window:
    return Window(at(day), at(day) + timedelta(days=1))


def choosing(use_case: UseCase, **retrain: Any) -> UseCase:
    return use_case.model_copy(update={"retrain": Retrain(**retrain)})


def test_without_a_report_there_is_no_verdict(world):
    lake, use_case = world
    for cause in ("drift", "performance"):
        assert window_verdicts(lake, use_case, cause) == []
        assert retraining_verdicts(lake, use_case, cause) == []
        assert newest_streak(lake, use_case, cause) is None


def test_a_window_passes_while_fewer_columns_drifted_than_the_share(world):
    lake, use_case = world
    drifted(
        lake,
        [
            (11, "a", True), (11, "b", False), (11, "c", None),
            (10, "a", True), (10, "b", False), (10, "c", False),
            (12, "a", None), (12, "b", None), (12, "c", None),
            (13, "a", False), (13, "b", False), (13, "c", False),
        ],
    )  # fmt: skip
    # Half of two were too many, a third is not; a window in which none was judged has no verdict.
    assert window_verdicts(lake, use_case, "drift") == [
        (window(10), True), (window(11), False), (window(13), True),
    ]  # fmt: skip


def test_columns_that_count_for_retraining_are_judged_by_themselves(world):
    lake, use_case = world
    drifted(
        lake,
        [
            (11, "a", True), (11, "b", False), (11, "it's", False),
            (12, "a", False), (12, "b", False), (12, "it's", True),
            (13, "a", True), (13, "b", None), (13, "it's", None),
        ],
    )  # fmt: skip
    counting = choosing(use_case, columns=("b", "it's"), metrics=("roc_auc",))
    assert retraining_verdicts(lake, counting, "drift") == [(window(11), True), (window(12), False)]
    assert retraining_verdicts(lake, use_case, "drift") == window_verdicts(lake, use_case, "drift")
    assert [passed for _, passed in window_verdicts(lake, counting, "drift")] == [True, True, False]
    assert retraining_verdicts(lake, choosing(use_case, columns=()), "drift") == []


def test_a_window_passes_where_every_current_metric_keeps_its_bounds(world):
    lake, use_case = world
    measured(
        lake,
        [
            (11, "roc_auc", True, "current"), (11, "brier", True, "current"),
            (11, "roc_auc", False, "first"), (11, "log_loss", None, "current"),
            (12, "roc_auc", True, "current"), (12, "brier", False, "current"),
            (13, "roc_auc", None, "current"), (14, "roc_auc", True, "first"),
        ],
    )  # fmt: skip
    assert window_verdicts(lake, use_case, "performance") == [
        (window(11), True), (window(12), False),
    ]  # fmt: skip
    counting = choosing(use_case, columns=("a",), metrics=("roc_auc",))
    assert retraining_verdicts(lake, counting, "performance") == [
        (window(11), True), (window(12), True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("verdicts", "passed", "newest", "since", "windows"),
    [
        ({11: True}, True, 11, 11, 1),
        ({11: False, 12: True, 13: True}, True, 13, 12, 2),
        ({11: True, 12: False, 14: False, 15: False}, False, 15, 12, 3),
        ({11: False, 12: True, 13: False}, False, 13, 13, 1),
    ],
)
def test_a_streak_is_the_unbroken_run_of_the_newest_verdict(
    world, verdicts, passed, newest, since, windows
):
    lake, use_case = world
    drifted(lake, [(day, "a", not each) for day, each in verdicts.items()])
    found = newest_streak(lake, use_case, "drift")
    assert found == Streak(passed, window(newest), window(since), windows)


@pytest.mark.parametrize(
    ("said", "chosen", "passed"),
    [
        ({"a": True, "b": False}, None, False),
        ({"a": True, "b": False, "c": False}, None, True),
        ({"a": False}, None, True),
        ({}, None, None),
        ({"a": True, "b": False}, ("b",), True),
        ({"a": True, "b": False}, ("a",), False),
        ({"a": True, "b": False}, ("c",), None),
        ({"a": True, "b": False}, (), None),
    ],
)
def test_drift_of_a_window_is_judged_by_the_columns_that_count(shared, said, chosen, passed):
    assert drift_passed(shared[1], said, chosen) is passed


@pytest.mark.parametrize(
    ("kept", "chosen", "passed"),
    [
        ({"a": True, "b": False}, None, False),
        ({"a": True, "b": True}, None, True),
        ({}, None, None),
        ({"a": True, "b": False}, ("a",), True),
        ({"a": True, "b": False}, ("b",), False),
        ({"a": True}, ("c",), None),
        ({"a": True}, (), None),
    ],
)
def test_performance_of_a_window_is_judged_by_the_metrics_that_count(kept, chosen, passed):
    assert performance_passed(kept, chosen) is passed
