"""What a window says of a column: status, score, nulls, and which bound makes it drift."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ks_2samp, wasserstein_distance

from ml_platform.monitoring.columns import MonitoredColumn, Readings, microseconds
from ml_platform.monitoring.distances import measure_psi
from ml_platform.monitoring.scores import (
    ColumnDrift,
    Trail,
    is_failure,
    measure_drift,
    named_column,
    trail,
)
from ml_platform.spec.duration import Duration
from ml_platform.spec.watching import Drift
from ml_platform.spec.windows import Window
from tests.trips_use_case import at, write_folder

START = datetime(2024, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NUMBERS = MonitoredColumn("pace", "feature", numeric=True)
CLASSES = MonitoredColumn("city", "request", numeric=False)


def judged(
    reference: list, current: list | None, drift: Drift, column: MonitoredColumn = NUMBERS
) -> ColumnDrift:
    """One window against one reference; None where the column is not there."""
    read = {}
    if current is not None:
        times = np.full(len(current), microseconds(START), dtype=np.int64)
        read = {column.name: Readings(times, column.values(pd.Series(current, dtype=object)))}
    frame = pd.DataFrame({column.name: pd.Series(reference, dtype=object)})
    ((found,),) = measure_drift([column], read, {1: frame}, [Trail(START, START + DAY, 1)], drift)
    return found


def test_all_that_is_said_of_a_column_that_is_judged():
    drift = Drift(
        min_rows=4, threshold=0.5, thresholds={"pace": 2.0}, null_threshold=0.9,
        null_thresholds={"pace": 0.3},
    )  # fmt: skip
    assert judged([1.0, 3.0, None, 1.0, 3.0], [2.0, 4.0, 2.0, 4.0], drift) == ColumnDrift(
        column="pace", kind="feature", method="wasserstein", score=1.0, threshold=2.0,
        drifted=False, status="scored", current_rows=4, reference_rows=5, null_share=0.0,
        reference_null_share=0.2, null_score=0.2, null_threshold=0.3, nulls_drifted=False,
        evidently_score=1.0, new_categories=None,
    )  # fmt: skip


def test_all_that_is_said_of_a_column_of_classes():
    drift = Drift(min_rows=4, method="psi", categorical_threshold=0.2, null_threshold=0.5)
    found = judged(["a", "b"] * 2, ["a", "c", None, "d", "a"], drift, CLASSES)
    psi = measure_psi(np.array([0.5, 0.5, 0, 0]), np.array([0.5, 0, 0.25, 0.25]))
    assert found == ColumnDrift(
        column="city", kind="request", method="psi", score=psi, threshold=0.2,
        drifted=True, status="scored", current_rows=5, reference_rows=4, null_share=0.2,
        reference_null_share=0.0, null_score=0.2, null_threshold=0.5, nulls_drifted=False,
        evidently_score=psi, new_categories=2,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("current", "status", "drifted", "nulls_drifted", "rows"),
    [
        (None, "absent", True, None, 0),
        ([], "too few rows", None, None, 0),
        ([None] * 3, "too few rows", None, None, 3),
        ([None] * 4, "all null", True, True, 4),
        ([1.0, 1.0, 1.0], "too few rows", None, None, 3),
        ([1.0, 1.0, 1.0, None], "too few values", None, False, 4),
        ([1.0, 1.0, None, None], "too few values", True, True, 4),
        ([1.0, 1.0, 1.0, 1.0], "scored", False, False, 4),
        ([9.0, 9.0, 9.0, 9.0], "scored", True, False, 4),
        ([1.0, 1.0, 1.0, 1.0, None, None, None, None], "scored", True, True, 8),
    ],
)
@pytest.mark.parametrize("column", [NUMBERS, CLASSES])
def test_what_a_window_has_of_a_column_decides_what_is_said(
    column, current, status, drifted, nulls_drifted, rows
):
    found = judged([1.0] * 8, current, Drift(min_rows=4, null_threshold=0.5), column)
    assert (found.status, found.drifted, found.nulls_drifted) == (status, drifted, nulls_drifted)
    assert (found.current_rows, found.score is None) == (rows, status != "scored")
    assert (found.null_share is None, found.null_score is None) == (not rows, not rows)


@pytest.mark.parametrize(
    ("reference", "rows", "share"), [([], 0, None), ([None, None], 2, 1.0), ([np.inf], 1, 1.0)]
)
def test_without_a_value_in_the_reference_nothing_is_judged(reference, rows, share):
    for current in ([1.0] * 9, [None] * 9, [1.0]):
        found = judged(reference, current, Drift(min_rows=4))
        assert (found.status, found.drifted, found.score) == ("no reference", None, None)
        assert (found.nulls_drifted, found.reference_null_share) == (None, share)
        assert found.reference_rows == rows
        assert (found.null_score is None) is (share is None)
    absent = judged(reference, None, Drift(min_rows=4))
    assert (absent.status, absent.drifted) == ("absent", True)
    assert judged([None, None], ["a"] * 9, Drift(min_rows=4), CLASSES).new_categories is None


def test_new_categories_are_counted_whether_or_not_there_is_a_score():
    few = judged(["a", "b"], ["c", "c", "a"], Drift(min_rows=4), CLASSES)
    assert (few.status, few.new_categories) == ("too few rows", 1)
    assert judged([1.0], [2.0], Drift(min_rows=1)).new_categories is None


@pytest.mark.parametrize(
    ("threshold", "drifted"), [(0.999999, True), (1.0, True), (1.000001, False)]
)
def test_a_distance_drifts_from_its_threshold_on(threshold, drifted):
    drift = Drift(min_rows=1, threshold=threshold)
    assert judged([1.0, 3.0], [2.0, 4.0], drift).drifted is drifted


def test_a_p_value_drifts_up_to_its_threshold():
    before, now = [1.0, 2.0, 3.0, 4.0, 5.0], [3.5, 4.5, 5.5, 6.5, 7.5]
    p_value = ks_2samp(before, now).pvalue
    for threshold, drifted in ((p_value * 0.999, False), (p_value, True), (1.0, True)):
        found = judged(before, now, Drift(min_rows=1, method="ks", threshold=threshold))
        assert (found.score, found.evidently_score) == (p_value, p_value)
        assert (found.method, found.drifted) == ("ks", drifted)
    # Classes have no ranks.
    classes = judged(["a"], ["b"], Drift(min_rows=1, method="ks"), CLASSES)
    assert (classes.method, classes.drifted) == ("jensenshannon", True)
    assert classes.score == pytest.approx(np.log(2) ** 0.5)


@pytest.mark.parametrize("method", ["psi", "jensenshannon"])
def test_shares_of_numbers_are_measured_as_the_method_says(method):
    found = judged([1.0, 2.0], [2.0, 2.0], Drift(min_rows=1, method=method))
    expected = {
        "psi": (0.5 - 0.0001) * np.log(0.5 / 0.0001) + 0.5 * np.log(2),
        "jensenshannon": ((0.5 * np.log(2) + 0.5 * np.log(2 / 3) + np.log(4 / 3)) / 2) ** 0.5,
    }
    assert found.score == pytest.approx(expected[method])


def test_values_far_outside_inflate_evidentlys_score_alone():
    before = np.arange(100.0)
    now = np.where(before == 0, 1e6, before + 30)
    found = judged(before.tolist(), now.tolist(), Drift(min_rows=1))
    # Two values at each end aside, the window reaches from 33 to 128.
    clipped = np.minimum(now, 128 + 95)
    assert found.score == pytest.approx(wasserstein_distance(before, clipped) / before.std())
    assert found.evidently_score == pytest.approx(wasserstein_distance(before, now) / before.std())


@pytest.mark.parametrize("method", ["wasserstein", "psi"])
def test_a_value_far_outside_of_the_reference_alone_is_no_unit_to_measure_by(method):
    before = np.array([-5000.0, *range(1, 100)])
    now = np.linspace(-3000, 3000, 100)
    found = judged(before.tolist(), now.tolist(), Drift(min_rows=1, method=method))
    # The window's own fences hold all values; the reference's hold all but one.
    if method == "wasserstein":
        own = np.clip(before, 2 - 95, 97 + 95).std()
        distance = wasserstein_distance(before, now)
        assert found.score == pytest.approx(distance / own)
        assert found.evidently_score == pytest.approx(distance / before.std())
    else:
        assert found.score == found.evidently_score > 0


def test_each_window_is_held_against_its_own_versions_reference():
    times = np.array([microseconds(START + n * DAY) for n in range(3)])
    read = {"pace": Readings(times, pd.Series([1.0, 1.0, 4.0]))}
    references = {1: pd.DataFrame({"pace": [1.0, 3.0]}), 2: pd.DataFrame({"pace": [4.0]})}
    trails = [Trail(START + n * DAY, START + (n + 1) * DAY, v) for n, v in ((0, 1), (1, 2), (2, 2))]
    found = measure_drift([NUMBERS], read, references, trails, Drift(min_rows=1))
    assert [(row.score, row.reference_rows, row.current_rows) for (row,) in found] == [
        (1.0, 2, 1), (3000.0, 1, 1), (0.0, 1, 1),
    ]  # fmt: skip


def test_windows_are_judged_as_their_results_are_asked_for():
    asked = []

    def trails():
        for number in range(3):
            asked.append(number)
            yield Trail(START, START + DAY, 1)

    found = measure_drift([NUMBERS], {}, {1: pd.DataFrame()}, trails(), Drift())
    assert asked == []
    ((first,), (second,)) = next(found), next(found)
    assert (asked, first.status, second.drifted) == ([0, 1], "absent", True)


def test_a_window_is_judged_by_what_trails_up_to_its_end(tmp_path: Path):
    use_case = write_folder(tmp_path, "binary")
    watched = SimpleNamespace(window=Duration(3, "d"))
    case = use_case.model_copy(update={"monitoring": watched})
    # Clocks go forward on the 10th: three days are steps of the calendar.
    assert trail(case, Window(at(11), at(12)), 7) == Trail(at(9), at(12), 7)


@pytest.mark.parametrize(
    ("drifted", "judged_columns", "limit", "failed"),
    [
        (0, 5, 0.0, False),
        (0, 5, 0.3, False),
        (1, 5, 0.0, True),
        (1, 5, 0.2, True),
        (1, 5, 0.21, False),
        (5, 5, 1.0, True),
        (4, 5, 1.0, False),
    ],
)
def test_a_report_fails_from_its_share_of_drifted_columns_on(
    drifted, judged_columns, limit, failed
):
    assert is_failure(drifted, judged_columns, limit) is failed


@pytest.mark.parametrize(
    ("nulls_drifted", "share", "reference", "name"),
    [
        (True, 0.5, 0.25, "gauge (nulls 25% → 50%)"),
        (True, 0.0, 0.0, "gauge (nulls 0% → 0%)"),
        (False, 0.5, 0.25, "gauge"),
        (True, None, 0.25, "gauge"),
        (True, 0.5, None, "gauge"),
    ],
)
def test_shares_of_nulls_stand_beside_a_name_where_they_drifted(
    nulls_drifted, share, reference, name
):
    assert named_column("gauge", nulls_drifted, share, reference) == name


def test_a_column_names_its_nulls_where_these_drifted():
    drift = Drift(min_rows=4, null_threshold=0.5)
    assert judged([1.0] * 8, [1.0, None] * 4, drift).named == "pace (nulls 0% → 50%)"
    assert judged([1.0] * 8, [9.0] * 8, drift).named == "pace"
    assert judged([1.0] * 8, None, drift).named == "pace"


def test_a_column_whose_last_values_are_gone_has_drifted_however_few_they_were():
    found = judged([1.0, None, None, None], [None] * 9, Drift(min_rows=4, null_threshold=0.5))
    assert (found.status, found.nulls_drifted, found.drifted) == ("all null", False, True)
    assert (found.null_score, found.reference_null_share) == (0.25, 0.75)


def test_a_category_is_new_in_the_windows_that_have_it():
    times = np.array([microseconds(START + n * DAY) for n in range(3)])
    read = {"city": Readings(times, pd.Series(["a", "b", "a"], dtype=object))}
    trails = [Trail(START + n * DAY, START + (n + 1) * DAY, 1) for n in range(3)]
    found = measure_drift([CLASSES], read, {1: pd.DataFrame({"city": ["a"]})}, trails, Drift())
    assert [row.new_categories for (row,) in found] == [0, 1, 0]
