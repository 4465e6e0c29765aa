import warnings
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp, wasserstein_distance

from ml_platform.monitoring.columns import MonitoredColumn, Readings, microseconds
from ml_platform.monitoring.distances import (
    Fences,
    QuantileSteps,
    binned_shares,
    counted_shares,
    measure_jensenshannon,
    measure_ks,
    measure_psi,
    measure_wasserstein,
    standard_deviation,
)
from ml_platform.monitoring.scores import ColumnDrift, Trail, measure_drift
from ml_platform.spec.watching import Drift

DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
COLUMNS = {
    "delay": True,
    "gappy": True,
    "few_values": True,
    "same_constant": True,
    "other_constant": True,
    "infinite": True,
    "carrier": False,
    "one_class": False,
    "gappy_class": False,
}


def frame(rows: int, shift: float, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    delay = random.normal(shift, 2, rows)
    classes = np.array(["AA", "B6", "DL", "only later"], dtype=object)
    weights = [0.5, 0.3, 0.2, 0] if shift == 0 else [0.3, 0.3, 0.3, 0.1]
    return pd.DataFrame(
        {
            "delay": delay,
            "gappy": np.where(random.random(rows) < 0.2, np.nan, delay**3),
            "few_values": random.integers(0, 5 + int(4 * shift), rows).astype(float),
            "same_constant": 3.0,
            "other_constant": 1.0 + shift,
            "infinite": np.where(random.random(rows) < 0.01, np.inf, delay),
            "carrier": random.choice(classes, rows, p=weights),
            "one_class": np.full(rows, "x", dtype=object),
            "gappy_class": np.where(
                random.random(rows) < 0.3, None, random.choice(classes, rows, p=weights)
            ),
        }
    )


def readings(current: pd.DataFrame, a_day: int) -> dict[str, Readings]:
    times = np.array([microseconds(START + (i // a_day) * DAY) for i in range(len(current))])
    return {name: Readings(times, column(name).values(current[name])) for name in current.columns}


def column(name: str) -> MonitoredColumn:
    return MonitoredColumn(name, "feature", COLUMNS.get(name, True))


def scores(
    reference: pd.DataFrame, current: pd.DataFrame, drift: Drift | None = None, *, days: int = 4
) -> list[dict[str, ColumnDrift]]:
    a_day = -(-len(current) // 4)
    trails = [Trail(START + (i - days) * DAY, START + i * DAY, 1) for i in range(1, 5)]
    names = list(dict.fromkeys([*reference.columns, *current.columns]))
    found = measure_drift(
        [column(name) for name in names],
        readings(current, a_day),
        {1: reference},
        trails,
        drift or Drift(min_rows=1),
    )
    return [{one.column: one for one in row} for row in found]


def evidently_scores(
    reference: pd.DataFrame, current: pd.DataFrame, drift: Drift
) -> dict[str, float]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    definition = DataDefinition(
        numerical_columns=[name for name, numeric in COLUMNS.items() if numeric],
        categorical_columns=[name for name, numeric in COLUMNS.items() if not numeric],
    )
    preset = DataDriftPreset(
        num_method=drift.method, cat_method="psi" if drift.method == "psi" else "jensenshannon"
    )
    # Its widgets fail on infinities in a column without nulls.
    reference, current = (each.replace([np.inf, -np.inf], np.nan) for each in (reference, current))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # histograms of constant columns
        report = Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
    values = [metric for metric in report.dict()["metrics"] if "column" in metric["config"]]
    return {metric["config"]["column"]: float(metric["value"]) for metric in values}


@pytest.mark.parametrize(
    "method",
    [
        "wasserstein",
        *(pytest.param(m, marks=pytest.mark.slow) for m in ("psi", "jensenshannon", "ks")),
    ],
)
def test_scores_equal_evidentlys_own_report(method):
    drift = Drift(method=method, min_rows=1)
    reference, current = frame(1500, 0, seed=1), frame(2400, 0.7, seed=2)

    rows = scores(reference, current, drift, days=2)

    for day, ours in enumerate(rows, start=1):
        trail = current.iloc[max(0, day - 2) * 600 : day * 600]
        theirs = evidently_scores(reference, trail, drift)
        found = {name: ours[name].evidently_score for name in COLUMNS}
        assert found == pytest.approx(theirs, abs=1e-9)
        assert {one.status for one in ours.values()} == {"scored"}


def test_a_window_that_moved_scores_the_same_bits_as_a_window_alone():
    reference, current = frame(500, 0, seed=1), frame(800, 0.7, seed=2)
    moved = scores(reference, current, days=2)[-1]
    (alone,) = measure_drift(
        [column(name) for name in COLUMNS], readings(current, 200), {1: reference},
        [Trail(START + 2 * DAY, START + 4 * DAY, 1)], Drift(min_rows=1),
    )  # fmt: skip
    assert alone == list(moved.values())


def test_equal_constants_have_not_drifted_and_different_ones_have():
    reference = pd.DataFrame({"a": [3.0] * 9, "b": [3.0] * 9})
    row = scores(reference, pd.DataFrame({"a": [3.0] * 8, "b": [4.0] * 8}))[-1]
    assert (row["a"].score, row["a"].drifted, row["a"].status) == (0.0, False, "scored")
    assert (row["b"].score, row["b"].drifted) == (1000.0, True)


def test_a_column_without_values_has_drifted_and_has_no_score():
    row = scores(pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [np.nan] * 8}))[-1]["a"]
    assert (row.status, row.drifted, row.score, row.null_share) == ("all null", True, None, 1.0)


@pytest.mark.parametrize("numeric", [True, False])
def test_a_feed_that_dies_has_drifted_by_its_nulls(numeric):
    alive = [1.0, 2.0] * 50 if numeric else ["a", "b"] * 50
    values = [None if place % 20 else value for place, value in enumerate(alive * 4)]
    name = "delay" if numeric else "carrier"
    reference = pd.DataFrame({name: pd.Series(alive, dtype=None if numeric else object)})
    current = pd.DataFrame({name: pd.Series(values, dtype=float if numeric else object)})
    row = scores(reference, current, Drift(min_rows=50))[-1][name]
    assert (row.status, row.score, row.drifted, row.nulls_drifted) == (
        "too few values", None, True, True,
    )  # fmt: skip
    assert (row.null_score, row.null_share, row.reference_null_share) == (0.95, 0.95, 0.0)
    assert row.named == f"{name} (nulls 0% → 95%)"


def test_values_that_a_dying_feed_leaves_are_counted_after_nulls():
    current = pd.DataFrame({"a": [9.0] * 20 + [np.nan] * 20})
    reference = pd.DataFrame({"a": [1.0, np.nan] * 9})
    few = scores(reference, current, Drift(min_rows=21))[-1]["a"]
    assert (few.status, few.drifted, few.nulls_drifted) == ("too few values", None, False)
    enough = scores(reference, current, Drift(min_rows=20))[-1]["a"]
    assert (enough.status, enough.drifted) == ("scored", True)


@settings(deadline=None)
@given(
    before=st.integers(0, 40), now=st.integers(0, 40), threshold=st.integers(1, 20),
    numeric=st.booleans(),
)  # fmt: skip
def test_nulls_drift_where_their_shares_differ_by_the_threshold(before, now, threshold, numeric):
    def sample(nulls):
        values = [None] * nulls + ([3.0] if numeric else ["a"]) * (40 - nulls)
        return pd.DataFrame({"delay" if numeric else "carrier": pd.Series(values, dtype=object)})

    drift = Drift(min_rows=40, null_threshold=threshold / 20)
    (row,) = scores(sample(before), sample(now), drift)[-1].values()
    assert row.null_score == pytest.approx(abs(before - now) / 40)
    if before == 40:
        assert row.nulls_drifted is None
    else:
        assert row.nulls_drifted is (row.null_score >= threshold / 20)
        assert row.drifted or not row.nulls_drifted


@pytest.mark.parametrize("method", ["wasserstein", "psi", "jensenshannon"])
@settings(deadline=None)
@given(
    seed=st.integers(0, 2**16), size=st.floats(3, 300), sign=st.sampled_from([-1, 1]),
    zeros=st.integers(2, 9), sentinels=st.sampled_from(["both", "reference", "window"]),
)  # fmt: skip
def test_a_few_sentinels_hide_no_shift_and_make_none(method, seed, size, sign, zeros, sentinels):
    random = np.random.default_rng(seed)
    clean = random.normal(size * 7, size, (2, 1000))
    before, now = clean.copy()
    place = random.choice(1000, 10, replace=False)
    if sentinels != "window":
        before[place] = sign * 10.0**zeros * size
    if sentinels != "reference":
        now[place] = sign * 10.0**zeros * size
    drift = Drift(method=method, min_rows=1, threshold=0.3)

    def judged(now):
        return scores(pd.DataFrame({"a": before}), pd.DataFrame({"a": now}), drift)[-1]["a"]

    assert judged(now).drifted is False
    assert judged(np.where(now == sign * 10.0**zeros * size, now, now + 5 * size)).drifted is True


@settings(deadline=None)
@given(seed=st.integers(0, 2**16), shift=st.floats(-50, 50), spread=st.floats(0.1, 10))
def test_without_values_far_outside_the_score_is_evidentlys(seed, shift, spread):
    random = np.random.default_rng(seed)
    reference = pd.DataFrame({"a": random.uniform(-1, 1, 300)})
    current = pd.DataFrame({"a": random.uniform(-spread, spread, 300) + shift})
    for method in ("wasserstein", "psi", "jensenshannon", "ks"):
        row = scores(reference, current, Drift(method=method, min_rows=1))[-1]["a"]
        assert row.score == row.evidently_score


def test_many_sentinels_are_drift():
    values = np.random.default_rng(0).normal(0, 1, 1000)
    current = np.where(np.arange(1000) % 20 == 0, -999.0, values)
    row = scores(pd.DataFrame({"a": values}), pd.DataFrame({"a": current}))[-1]["a"]
    assert row.drifted is True


def test_a_column_that_is_gone_has_drifted():
    row = scores(pd.DataFrame({"a": [1.0], "gone": [2.0]}), pd.DataFrame({"a": [1.0] * 8}))[-1]
    gone = row["gone"]
    assert (gone.status, gone.drifted, gone.score, gone.current_rows) == ("absent", True, None, 0)


def test_a_column_that_the_reference_lacks_is_not_judged():
    reference = pd.DataFrame({"a": [1.0, 2.0], "empty": [np.nan, np.nan]})
    row = scores(reference, pd.DataFrame({"a": [1.0] * 8, "empty": 1.0, "new": 1.0}))[-1]
    for name in ("empty", "new"):
        assert (row[name].status, row[name].drifted, row[name].score) == (
            "no reference",
            None,
            None,
        )


def test_too_few_rows_are_not_judged():
    row = scores(pd.DataFrame({"a": [1.0, 2.0]}), pd.DataFrame({"a": [9.0] * 8}), Drift(min_rows=9))
    assert (row[-1]["a"].status, row[-1]["a"].drifted) == ("too few rows", None)
    assert (row[-1]["a"].score, row[-1]["a"].current_rows) == (None, 8)


def test_new_categories_are_counted_and_scored():
    reference = pd.DataFrame({"carrier": ["AA", "B6"] * 4})
    row = scores(reference, pd.DataFrame({"carrier": ["AA", "B6", "new", "newer"] * 2}))[-1]
    assert row["carrier"].new_categories == 2
    both, one_sided = 0.25 * np.log(0.25 / 0.375), 0.25 * np.log(2)
    divergence = (2 * 0.5 * np.log(0.5 / 0.375) + 2 * both + 2 * one_sided) / 2
    assert row["carrier"].score == pytest.approx(np.sqrt(divergence))
    assert row["carrier"].drifted is True


def test_infinities_count_as_missing():
    row = scores(pd.DataFrame({"a": [1.0, np.inf]}), pd.DataFrame({"a": [1.0, -np.inf] * 4}))[-1]
    assert (row["a"].score, row["a"].null_share) == (0.0, 0.5)


def test_a_class_is_the_same_whatever_type_it_was_stored_in():
    label = MonitoredColumn("label", "label", numeric=False)
    same = [[True, False, None], [1, 0, None], [1.0, 0.0, None]]
    texts = [label.values(pd.Series(values, dtype=object)).tolist() for values in same]
    assert texts == [["1.0", "0.0", None]] * 3
    assert label.values(pd.Series([1.0, 0.0, np.nan])).tolist() == ["1.0", "0.0", None]
    assert label.values(pd.Series(["late", None])).tolist() == ["late", None]


def test_labels_count_from_when_they_are_known():
    times = np.array([microseconds(START)] * 3)
    known = np.array([microseconds(START + k * DAY) for k in (0, 1, 2)])
    label = MonitoredColumn("label", "label", numeric=True)
    trails = [Trail(START, START + k * DAY, 1) for k in (1, 2, 3)]
    rows = measure_drift(
        [label], {"label": Readings(times, pd.Series([1.0, 2.0, 3.0]), known)},
        {1: pd.DataFrame({"label": [1.0]})}, trails, Drift(min_rows=1),
    )  # fmt: skip
    assert [row[0].current_rows for row in rows] == [1, 2, 3]


def test_a_value_that_was_corrected_counts_until_its_correction_was_known():
    day = int(DAY.total_seconds()) * 1_000_000
    start = int(START.timestamp()) * 1_000_000
    times = np.array([start, start])
    known, replaced = times + np.array([0, 2 * day]), times + np.array([2 * day, 10 * day])
    label = MonitoredColumn("label", "label", numeric=True)
    corrected = Readings(times, pd.Series([1.0, 5.0]), known, replaced)
    trails = [Trail(START, START + k * DAY, 1) for k in (1, 2, 3)]
    rows = measure_drift(
        [label], {"label": corrected}, {1: pd.DataFrame({"label": [1.0]})}, trails,
        Drift(min_rows=1),
    )  # fmt: skip
    found = [(row[0].current_rows, row[0].score) for row in rows]
    assert found == [(1, 0.0), (1, 0.0), (1, 4.0 / 0.001)]
    assert corrected.between(START, START + 3 * DAY).tolist() == [5.0]


@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 3), (3, 2), (4, 4), (7, 1), (6, 9)])
def test_quantile_steps_cover_one_without_gaps(n, m):
    steps = QuantileSteps.of(n, m)
    assert steps.width.sum() == pytest.approx(1)
    for index, size in ((steps.reference, n), (steps.current, m)):
        weights = np.bincount(index, weights=steps.width, minlength=size)
        assert weights == pytest.approx(np.full(size, 1 / size))


SAMPLES = st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=60).map(
    lambda values: np.sort(np.array(values))
)


@given(SAMPLES, SAMPLES, st.floats(0.1, 10))
def test_a_wasserstein_distance_is_scipys_in_units_of_the_scale(before, now, scale):
    steps = QuantileSteps.of(len(before), len(now))
    copies = before.copy(), now.copy()
    found = measure_wasserstein(before, now, scale, steps)
    assert found == pytest.approx(wasserstein_distance(before, now) / scale, abs=1e-9)
    assert (before.tolist(), now.tolist()) == tuple(each.tolist() for each in copies)


def test_quantile_steps_are_merged_in_order_and_a_shared_point_makes_none():
    steps = QuantileSteps.of(2, 3)
    assert steps.reference.tolist() == [0, 0, 0, 1, 1]
    assert steps.current.tolist() == [0, 0, 1, 1, 2]
    assert steps.width * 6 == pytest.approx([0, 2, 1, 1, 2])
    equal = QuantileSteps.of(2, 2)
    assert (equal.reference.tolist(), equal.current.tolist()) == ([0, 0, 1, 1], [0, 0, 0, 1])
    assert equal.width.tolist() == [0, 0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("inner", "outliers", "low", "high"),
    [
        # 40 values: one at each end may lie anywhere.
        (38, 1, -37, 74),
        (37, 1, None, None),
        (76, 2, -75, 150),
        (76, 3, None, None),
    ],
)
def test_fences_stand_as_far_outside_of_the_middle_as_it_is_wide(inner, outliers, low, high):
    middle = list(map(float, range(inner)))
    far = [1e9 + n for n in range(outliers)]
    found = Fences.of(np.array([*sorted(-x for x in far), *middle, *far]))
    if low is None:
        assert (found.low, found.high) < (-1e8, -1e8)
        assert found.high > 1e9
    else:
        assert found == Fences(low, high)


def test_a_middle_of_one_value_has_no_fences():
    found = Fences.of(np.array([-1e9, *[5.0] * 38, 1e9]))
    assert found == Fences(-np.inf, np.inf)
    values = np.array([-1e9, 5.0, 1e9])
    assert found.clip(values) is values


def test_fences_around_others_hold_both():
    assert Fences(-1, 5).around(Fences(0, 9)) == Fences(-1, 9)
    assert Fences(0, 9).around(Fences(-1, 5)) == Fences(-1, 9)


@pytest.mark.parametrize(
    ("values", "clipped"),
    [
        ([0.0, 1.0, 4.0], None),
        ([-0.5, 1.0, 4.0], [0.0, 1.0, 4.0]),
        ([0.0, 1.0, 4.5], [0.0, 1.0, 4.0]),
        ([-9.0, 1.0, 9.0], [0.0, 1.0, 4.0]),
    ],
)
def test_what_lies_beyond_the_fences_counts_as_the_fence(values, clipped):
    given = np.array(values)
    found = Fences(0, 4).clip(given)
    assert found is given if clipped is None else found.tolist() == clipped
    assert given.tolist() == values


def test_a_reference_that_hardly_varies_is_measured_in_thousandths():
    assert standard_deviation(np.array([3.0, 3.0])) == 0.001
    assert standard_deviation(np.array([0.0, 0.001])) == 0.001
    assert standard_deviation(np.array([0.0, 4.0])) == 2.0


def test_few_distinct_numbers_are_compared_value_by_value_and_many_in_bins():
    before, now = np.sort(np.arange(20.0).repeat(2)), np.array([0.0, 0.0, 0.5, 30.0])
    ours, theirs = binned_shares(before, now, 20)
    assert ours.tolist() == [0.05, 0, *[0.05] * 19, 0]
    assert theirs.tolist() == [0.5, 0.25, *[0.0] * 19, 0.25]
    ours, theirs = binned_shares(before, now, 21)
    edges = np.histogram_bin_edges(np.concatenate((before, now)), bins="sturges")
    assert ours.tolist() == (np.histogram(before, edges)[0] / 40).tolist()
    assert theirs.tolist() == (np.histogram(now, edges)[0] / 4).tolist()


@given(SAMPLES, SAMPLES)
def test_binned_shares_are_those_of_a_histogram_and_add_up_to_one(before, now):
    for distinct in (20, 21):
        for shares in binned_shares(before, now, distinct):
            assert shares.sum() == pytest.approx(1)
    edges = np.histogram_bin_edges(np.concatenate((before, now)), bins="sturges")
    found = binned_shares(before, now, 21)
    for shares, sample in zip(found, (before, now), strict=True):
        assert shares * len(sample) == pytest.approx(np.histogram(sample, edges)[0])


def test_only_categories_that_either_side_has_are_compared():
    before, now = counted_shares(np.array([2, 0, 1, 0, 1]), np.array([0, 0, 1, 1, 0]))
    assert before.tolist() == [0.5, 0.25, 0.0, 0.25]
    assert now.tolist() == [0.0, 0.5, 0.5, 0.0]


@pytest.mark.parametrize(
    ("before", "now", "filled"),
    [
        ([0.5, 0.5, 0.0], [0.25, 0.5, 0.25], [0.5, 0.5, 0.0001]),
        ([0.9999, 0.0001, 0.0], [0.25, 0.5, 0.25], [0.9999, 0.0001, 0.0001 / 10**6]),
        ([0.9998, 0.0002, 0.0], [0.25, 0.5, 0.25], [0.9998, 0.0002, 0.0001]),
    ],
)
def test_an_empty_bin_counts_as_a_small_share_in_a_psi(before, now, filled):
    one, other = np.array(filled), np.array(now)
    expected = ((one - other) * np.log(one / other)).sum()
    assert measure_psi(np.array(before), np.array(now)) == pytest.approx(expected)
    assert measure_psi(np.array(now), np.array(before)) == pytest.approx(expected)


@given(
    st.integers(1, 9).flatmap(
        lambda n: st.tuples(*[st.lists(st.integers(0, 9), min_size=n, max_size=n)] * 2)
    )
)
def test_a_jensenshannon_distance_is_scipys_whatever_shares_add_up_to(both):
    before, now = (np.array(each, dtype=float) + (0 if any(each) else 1) for each in both)
    found = measure_jensenshannon(before, now)
    assert found == pytest.approx(np.nan_to_num(jensenshannon(before, now)), abs=1e-7)
    assert measure_jensenshannon(before, before) == pytest.approx(0, abs=1e-7)


def test_the_p_value_is_that_of_the_two_sample_test():
    random = np.random.default_rng(0)
    before, now = random.normal(0, 1, 80), random.normal(0.4, 1, 50)
    assert measure_ks(before, now) == ks_2samp(before, now).pvalue
    assert measure_ks(before, before) == 1.0
