"""What the promotion gate says of models whose quality is known, with no lake."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.errors import ModelRefused
from ml_platform.registry import NOT_JUDGED, ModelVersion
from ml_platform.spec.modelling import Gate
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.training import judge, judged_range
from ml_platform.training.verdict import GateVerdict
from ml_platform.training.verdict_picture import draw_verdict
from tests.trips_use_case import ZONE, at, write_folder


class ByDistance:
    """Farther is later; `noise` hides it, everywhere or only in one city."""

    def __init__(self, noise: float, city: str | None = None) -> None:
        self.noise, self.city = noise, city

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        spread = np.random.default_rng(1).normal(0, 1, len(rows)) * self.noise
        if self.city:
            spread *= (rows["city"] == self.city).to_numpy()
        late = 1 / (1 + np.exp(-(rows["distance"].to_numpy() - 30) / 10 - spread))
        return np.column_stack((1 - late, late))


class Off:
    """A regression that is off by a constant."""

    def __init__(self, by: float) -> None:
        self.by = by

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        return rows["distance"].to_numpy() + self.by


class Swinging:
    """A regression that is off by as much upwards as downwards: without a bias."""

    def __init__(self, by: float) -> None:
        self.by = by

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        distance = rows["distance"].to_numpy()
        return distance + np.where(distance % 2 == 0, self.by, -self.by)


class OffIn:
    """A regression that is off by a constant of each city, 1 where it is not named."""

    def __init__(self, **by: float) -> None:
        self.by = by

    def predict(self, rows: pd.DataFrame) -> np.ndarray:
        off = [self.by.get(city, 1.0) for city in rows["city"]]
        return rows["distance"].to_numpy() + np.array(off)


@pytest.fixture
def use_case(tmp_path) -> UseCase:
    return write_folder(tmp_path, "binary")


@pytest.fixture
def lengths(tmp_path) -> UseCase:
    """A regression of the distance itself: what each model is off by is a whole number."""
    return asked(write_folder(tmp_path, "regression"), metric="mae")


def asked(use_case: UseCase, metric: str = "roc_auc", **gate: Any) -> UseCase:
    model = use_case.model.model_copy(update={"metric": metric})
    return use_case.model_copy(update={"model": model, "gate": Gate.model_validate(gate)})


def version(number: int, estimator: Any, until: int = 15, cutoff: int = 20) -> ModelVersion:
    """A version that was fitted on the days before `until`."""
    return ModelVersion(
        use_case="trips", version=number, run_id="", cutoff=at(cutoff), snapshot=1,
        estimator=estimator, digest="", metrics={}, reference=pd.DataFrame(),
        classes=("0", "1"), columns={"city": "VARCHAR", "distance": "DOUBLE"},
        trained_from=at(1), trained_until=at(until),
    )  # fmt: skip


def rows(first: int = 15, last: int = 19, a_day: int = 400) -> pd.DataFrame:
    """Labelled trips, whose lateness follows their distance."""
    random = np.random.default_rng(0)
    times = pd.date_range(at(first), at(last + 1), (last - first + 1) * a_day + 1)[:-1]
    distance = random.uniform(1, 60, len(times))
    late = random.uniform(0, 1, len(times)) < 1 / (1 + np.exp(-(distance - 30) / 10))
    city = random.choice(["Albany", "Boston", "Chicago"], len(times), p=[0.45, 0.45, 0.1])
    return pd.DataFrame(
        {"event_time": times, "city": city.astype(object), "distance": distance, "label": late}
    )


def whole(a_city: dict[str, int]) -> pd.DataFrame:
    """Trips of whole distances, even and odd ones alternately, as many in each city as given."""
    city = [name for name, count in a_city.items() for _ in range(count)]
    times = pd.date_range(at(15), at(20), len(city) + 1)[:-1]
    distance = np.arange(len(city), dtype=np.float64)
    return pd.DataFrame(
        {"event_time": times, "city": pd.Series(city, dtype=object), "distance": distance}
    ).assign(label=distance)


def number(version_number: int, estimator: Any) -> ModelVersion:
    return replace(version(version_number, estimator), classes=())


def test_a_model_that_is_truly_better_is_promoted(use_case):
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), rows())
    assert found.decision == "promoted"
    assert 0 < found.figures["improvement_lower"] < found.figures["improvement"]
    assert found.figures["improvement"] < found.figures["improvement_upper"]
    assert found.reason.endswith(" at 95% (paired bootstrap of 1000), needed +0.0000")


def test_the_same_model_again_is_refused(use_case):
    same = ByDistance(1)
    found = judge(use_case, version(2, same), version(1, same), rows())
    assert found.decision == "refused"
    assert found.figures["improvement"] == found.figures["improvement_lower"] == 0
    assert found.reason.startswith("not better beyond noise")


def test_an_improvement_that_may_be_noise_is_refused_however_positive(use_case):
    few = rows(a_day=20)
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(0.5)), few)
    assert found.decision == "refused"
    assert found.figures["improvement"] > 0 > found.figures["improvement_lower"]
    braver = asked(use_case, confidence=0.5)
    again = judge(braver, version(2, ByDistance(0)), version(1, ByDistance(0.5)), few)
    assert again.decision == "promoted"


def test_a_negative_least_improvement_lets_an_equal_model_pass(use_case):
    same = ByDistance(1)
    case = asked(use_case, min_improvement=-0.01)
    assert judge(case, version(2, same), version(1, same), rows()).decision == "promoted"


def test_the_same_rows_give_the_same_verdict_to_the_bit(use_case):
    one, other = (
        judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), rows())
        for _ in range(2)
    )
    assert one == other
    assert (one.improvements == other.improvements).all()


def test_a_guarded_metric_that_gets_worse_refuses_a_better_model(use_case):
    class Overconfident:
        def predict_proba(self, rows):
            late = 1 / (1 + np.exp(-(rows["distance"].to_numpy() - 30) / 3))
            return np.column_stack((1 - late, late))

    better = version(2, Overconfident()), version(1, ByDistance(0.7))
    assert judge(use_case, *better, rows()).decision == "promoted"
    found = judge(asked(use_case, guards={"log_loss": 0.02}), *better, rows())
    assert found.decision == "refused"
    assert found.reason.startswith("log_loss ")
    assert "allowed 0.0200; roc_auc" in found.reason
    assert judge(asked(use_case, guards={"log_loss": 9}), *better, rows()).decision == "promoted"


def test_a_segment_that_gets_worse_refuses_a_better_model(use_case):
    models = version(2, ByDistance(1, "Boston")), version(1, ByDistance(3, "Albany"))
    assert judge(use_case, *models, rows()).decision == "promoted"
    case = asked(use_case, segments=["city"], segment_tolerance=0.02)
    found = judge(case, *models, rows())
    assert found.decision == "refused"
    assert found.reason.startswith("city=Boston 0.")
    by_name = {segment.name: segment for segment in found.segments}
    # Chicago has too few rows to be compared.
    assert {name: s.passed for name, s in by_name.items()} == {
        "city=Albany": True,
        "city=Boston": False,
    }
    assert found.figures["segment city=Boston"] == by_name["city=Boston"].improvement < -0.02
    assert found.figures["rows city=Albany"] > 500


def test_rows_without_a_value_are_a_segment_too(use_case):
    some = rows()
    some.loc[some.index[:700], "city"] = None
    case = asked(use_case, segments=["city"], segment_tolerance=1)
    found = judge(case, version(2, ByDistance(0)), version(1, ByDistance(2)), some)
    assert "city=(none)" in {segment.name for segment in found.segments}


def test_rows_that_the_champion_was_fitted_on_do_not_count(use_case):
    later = version(1, ByDistance(2), until=18, cutoff=21)
    challenger = version(2, ByDistance(0))
    assert judged_range(challenger, later) == Window(at(18), at(20))
    found = judge(use_case, challenger, later, rows())
    assert found.figures["rows"] == 800


def test_where_the_champion_has_seen_it_all_the_challenger_is_refused(use_case):
    later = version(1, ByDistance(2), until=20, cutoff=25)
    challenger = version(2, ByDistance(0))
    assert judged_range(challenger, later) is None
    found = judge(use_case, challenger, later, rows())
    assert (found.decision, found.figures) == ("refused", {"rows": 0.0, "champion_version": 1.0})
    assert found.reason.startswith(
        "not judged: nothing to compare on: champion 1 was fitted on all"
    )


def test_too_few_rows_are_a_refusal_and_never_a_number(use_case):
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), rows()[:49])
    assert found.decision == "refused"
    assert found.reason == (
        "not judged: 49 labelled rows that neither was fitted on in "
        "[2024-03-15T00:00:00-04:00, 2024-03-20T00:00:00-04:00), model.min_rows is 50"
    )
    assert found.figures == {"rows": 49.0, "champion_version": 1.0}


def test_labels_that_are_all_the_same_are_a_refusal_too(use_case):
    late = rows().assign(label=True)
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), late)
    assert found.decision == "refused"
    assert found.reason.startswith("not judged: roc_auc is not defined on 2000 rows")


def test_the_first_model_is_promoted(use_case):
    found = judge(use_case, version(1, ByDistance(2)), None, rows())
    assert found.decision == "promoted"
    assert found.reason.startswith("first model, roc_auc 0.")
    assert draw_verdict(use_case, found) == {}


def test_a_bias_is_better_the_nearer_it_is_to_nothing(tmp_path):
    case = asked(write_folder(tmp_path, "regression"), metric="bias")
    some = rows().assign(label=lambda frame: frame["distance"])

    def off(number: int, by: float) -> ModelVersion:
        return replace(version(number, Off(by)), classes=())

    found = judge(case, off(2, 1), off(1, -3), some)
    assert (found.decision, found.figures["improvement"]) == ("promoted", pytest.approx(2))
    assert judge(case, off(2, -3), off(1, 1), some).decision == "refused"


def test_the_picture_shows_improvement_metrics_and_segments(use_case):
    case = asked(use_case, segments=["city"], segment_tolerance=0.05)
    found = judge(case, version(2, ByDistance(0)), version(1, ByDistance(2)), rows())
    pictures = draw_verdict(case, found)
    assert list(pictures) == ["improvement", "metrics", "segments"]
    assert all(image.startswith(b"\x89PNG") for image in pictures.values())


def test_a_verdict_says_all_that_it_rests_on(lengths):
    case = asked(lengths, "mae", confidence=0.9, min_improvement=0.5, guards={"rmse": 0})
    found = judge(case, number(7, Off(1)), number(4, Swinging(3)), whole({"Boston": 100}))
    assert found.decision == "promoted"
    assert found.reason == (
        "mae 1.0000 against 3.0000 of champion 4 on 100 rows: improvement +2.0000, above +2.0000 "
        "at 90% (paired bootstrap of 1000), needed +0.5000"
    )
    r2 = 1 - 100 / ((np.arange(100.0) - 49.5) ** 2).sum()
    assert found.figures == pytest.approx(
        {
            "rows": 100, "champion_version": 4,
            "challenger_mae": 1, "challenger_rmse": 1, "challenger_r2": r2, "challenger_bias": 1,
            "champion_mae": 3, "champion_rmse": 3, "champion_r2": 1 - (1 - r2) * 9,
            "champion_bias": 0,
            "improvement": 2, "improvement_lower": 2, "improvement_upper": 2,
            "confidence": 0.9, "min_improvement": 0.5,
        }
    )  # fmt: skip
    assert (found.improvements.tolist(), found.segments) == ([2.0] * 1000, ())
    assert "improvements" not in repr(found)


def test_the_bounds_of_an_improvement_are_those_of_the_resamples(use_case):
    case = asked(use_case, confidence=0.8)
    found = judge(case, version(2, ByDistance(0)), version(1, ByDistance(2)), rows(a_day=50))
    below = (found.improvements < found.figures["improvement_lower"]).mean()
    above = (found.improvements > found.figures["improvement_upper"]).mean()
    assert (below, above) == (pytest.approx(0.2, abs=0.002), pytest.approx(0.2, abs=0.002))


@pytest.mark.parametrize(("needed", "decision"), [(1.999, "promoted"), (2.0, "refused")])
def test_an_improvement_is_more_than_what_is_needed_not_as_much(lengths, needed, decision):
    case = asked(lengths, "mae", min_improvement=needed)
    found = judge(case, number(2, Off(1)), number(1, Off(3)), whole({"Boston": 60}))
    assert found.decision == decision
    assert found.reason.startswith("not better beyond noise; mae 1.0") is (decision == "refused")


@pytest.mark.parametrize(("allowed", "decision"), [(1.0, "promoted"), (0.75, "refused")])
def test_a_guarded_metric_may_get_worse_by_what_is_allowed(lengths, allowed, decision):
    case = asked(lengths, "mae", guards={"bias": allowed, "rmse": 0.0})
    found = judge(case, number(2, Off(1)), number(1, Swinging(3)), whole({"Boston": 60}))
    assert found.decision == decision
    if decision == "refused":
        assert found.reason.startswith(
            "bias 1.0000 against 0.0000 is worse by 1.0000, allowed 0.7500; mae 1.0000 against"
        )


def test_a_guarded_metric_that_is_not_defined_refuses_by_name(lengths):
    case = asked(lengths, "mae", guards={"r2": 0.5, "bias": 0.25})
    alike = whole({"Boston": 60}).assign(distance=4.0, label=4.0)
    found = judge(case, number(2, Off(1)), number(1, Off(3)), alike)
    assert found.decision == "refused"
    assert found.reason.startswith(
        "r2, which gate.guards asks for, is not defined on these rows; mae 1.0000"
    )


def test_each_segment_is_compared_by_itself_and_small_ones_are_not(lengths):
    case = asked(
        lengths, "mae", segments=["city", "distance"], segment_tolerance=0.5, segment_min_rows=40
    )
    some = whole({"Albany": 39, "Boston": 40, "Chicago": 50, "Denver": 60})
    # A number is a segment as people write it.
    some["distance"] = some["label"] = np.where(some["city"] == "Denver", 2.0, 7.5)
    models = number(2, OffIn(Boston=2.5, Chicago=3)), number(1, OffIn(Boston=2, Denver=9))
    found = judge(case, *models, some)
    assert [tuple(vars(segment).values()) for segment in found.segments] == [
        # At 0.5 worse a segment still passes.
        ("city", "Boston", 40, 2.5, 2.0, -0.5, True),
        ("city", "Chicago", 50, 3.0, 1.0, -2.0, False),
        ("city", "Denver", 60, 1.0, 9.0, 8.0, True),
        ("distance", "2", 60, 1.0, 9.0, 8.0, True),
        ("distance", "7.5", 129, *(pytest.approx(each) for each in (289 / 129, 169 / 129)),
         pytest.approx(-120 / 129), False),
    ]  # fmt: skip
    assert found.decision == "refused"
    assert found.reason.startswith(
        "city=Chicago 3.0000 against 1.0000 on 50 rows is worse by 2.0000, allowed 0.5000; "
        "distance=7.5 2.2403 against 1.3101 on 129 rows is worse by 0.9302, allowed 0.5000; mae "
    )
    assert found.figures["segment city=Denver"] == 8
    assert found.figures["rows city=Denver"] == 60


def test_without_tolerance_a_segment_may_not_get_worse_at_all(lengths):
    case = asked(lengths, "mae", segments=["city"], segment_tolerance=0, segment_min_rows=40)
    models = number(2, OffIn(Boston=1.25)), number(1, OffIn(Boston=1, Denver=9))
    found = judge(case, *models, whole({"Albany": 40, "Boston": 40, "Denver": 60}))
    assert {segment.group: segment.passed for segment in found.segments} == {
        "Albany": True, "Boston": False, "Denver": True,
    }  # fmt: skip
    assert found.reason.startswith("city=Boston 1.2500 against 1.0000 on 40 rows")
    assert "worse by 0.2500, allowed 0.0000; mae" in found.reason


def test_rows_without_a_value_are_the_last_segment_of_their_own(lengths):
    case = asked(lengths, "mae", segments=["city"], segment_tolerance=0, segment_min_rows=2)
    some = whole({"": 3, "Albany": 50})
    some.loc[some["city"] == "", "city"] = None
    found = judge(case, number(2, OffIn()), number(1, OffIn(Albany=2)), some)
    assert {segment.name: segment.rows for segment in found.segments} == {
        "city=(none)": 3, "city=Albany": 50,
    }  # fmt: skip
    full = judge(case, number(2, OffIn()), number(1, OffIn(Albany=2)), whole({"Albany": 50}))
    assert [segment.group for segment in full.segments] == ["Albany"]


def test_a_segment_whose_labels_are_all_the_same_is_not_compared_and_hides_no_other(use_case):
    some = rows()
    some.loc[some["city"] == "Albany", "label"] = True
    case = asked(use_case, segments=["city"], segment_tolerance=1)
    found = judge(case, version(2, ByDistance(0)), version(1, ByDistance(2)), some)
    assert [segment.group for segment in found.segments] == ["Boston"]


def test_resamples_without_both_classes_are_left_out(use_case):
    few = rows(a_day=20)
    few["label"] = np.arange(len(few)) == 30
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), few)
    # One row of a hundred is in a resample with a chance of 63%.
    assert 550 < len(found.improvements) < 720
    assert np.isfinite(found.improvements).all()
    assert np.isfinite(found.figures["improvement_lower"])
    assert f"paired bootstrap of {len(found.improvements)})" in found.reason


def test_rows_are_those_of_the_judged_range_its_first_moment_and_not_its_last(lengths):
    some = whole({"Boston": 60})
    moments = [at(15), at(20), datetime(2024, 3, 14, 23, 59, 59, tzinfo=ZONE), at(19, 23)]
    some.loc[:3, "event_time"] = moments
    found = judge(lengths, number(2, Off(1)), number(1, Off(3)), some)
    assert found.figures["rows"] == 58
    assert found == judge(lengths, number(2, Off(1)), number(1, Off(3)), some.drop([1, 2]))


def test_rows_that_do_not_count_move_no_other_from_its_label(lengths):
    case = asked(lengths, "mae", segments=["city"], segment_tolerance=9, segment_min_rows=2)
    some = whole({"Albany": 70, "Boston": 70})
    late = replace(number(1, OffIn(Boston=3)), trained_until=at(17))
    found = judge(case, number(2, OffIn()), late, some)
    assert (found.figures["rows"], found.figures["champion_mae"]) == (84, (14 + 3 * 70) / 84)
    assert [(s.group, s.rows, s.champion) for s in found.segments] == [
        ("Albany", 14, 1.0), ("Boston", 70, 3.0),
    ]  # fmt: skip


def test_as_many_rows_as_needed_are_enough(lengths):
    found = judge(lengths, number(2, Off(1)), number(1, Off(3)), whole({"Boston": 50}))
    assert (found.decision, found.is_unjudged) == ("promoted", False)


def test_no_rows_at_all_are_too_few_also_of_the_first_model(lengths):
    found = judge(lengths, number(1, Off(1)), None, whole({}))
    assert (found.decision, found.is_unjudged) == ("refused", True)
    assert found.reason == (
        "not judged: 0 labelled rows that neither was fitted on in "
        "[2024-03-15T00:00:00-04:00, 2024-03-20T00:00:00-04:00), model.min_rows is 50"
    )
    assert (found.figures, found.improvements.size, found.segments) == ({"rows": 0}, 0, ())


@pytest.mark.parametrize(
    ("challenger", "champion", "start"),
    [
        (at(15), None, at(15)),
        (at(15), at(12), at(15)),
        (at(15), at(18), at(18)),
        # Clocks show both times; the second time they do it is later.
        (
            datetime(2024, 11, 3, 1, 45, tzinfo=ZONE),
            datetime(2024, 11, 3, 1, 15, tzinfo=ZONE, fold=1),
            datetime(2024, 11, 3, 1, 15, tzinfo=ZONE, fold=1),
        ),
    ],
)
def test_the_judged_range_begins_where_both_models_were_fitted(challenger, champion, start):
    cutoff = datetime(2024, 11, 3, 1, 30, tzinfo=ZONE, fold=1) if start.month == 11 else at(20)
    ours = replace(version(2, Off(1)), trained_until=challenger, cutoff=cutoff)
    theirs = champion and replace(version(1, Off(1)), trained_until=champion)
    found = judged_range(ours, theirs)
    assert found == Window(start, cutoff)
    assert found.start.timestamp() == start.timestamp()


def test_a_range_that_ends_where_it_begins_is_none():
    first, second = (datetime(2024, 11, 3, 1, 30, tzinfo=ZONE, fold=fold) for fold in (0, 1))

    def judged(until: datetime, cutoff: datetime) -> Window | None:
        return judged_range(replace(version(2, Off(1)), trained_until=until, cutoff=cutoff), None)

    assert judged(at(20), at(20)) is None
    assert judged(second, first) is None
    assert judged(first, second) == Window(first, second)


def test_the_reason_names_until_when_the_champion_was_fitted(use_case):
    later = version(3, ByDistance(2), until=21, cutoff=25)
    found = judge(use_case, version(4, ByDistance(0)), later, rows())
    assert found.reason == (
        "not judged: nothing to compare on: champion 3 was fitted on all that was known before "
        "the cutoff, up to 2024-03-21T00:00:00-04:00"
    )
    assert found.is_unjudged


def test_labels_that_are_all_the_same_leave_the_figures_that_exist(use_case):
    late = rows().assign(label=True)
    found = judge(use_case, version(2, ByDistance(0)), version(1, ByDistance(2)), late)
    assert found.reason == (
        "not judged: roc_auc is not defined on 2000 rows whose labels are all the same; "
        "take a longer model.holdout"
    )
    assert set(found.figures) == {
        "rows", "champion_version", "challenger_log_loss", "challenger_brier",
        "challenger_calibration_error",
    }  # fmt: skip


def test_the_first_model_is_promoted_with_its_figures(lengths):
    found = judge(lengths, number(1, Off(-2)), None, whole({"Boston": 60}))
    assert (found.decision, found.reason) == ("promoted", "first model, mae 2.0000")
    assert (found.figures["rows"], found.figures["challenger_bias"]) == (60, -2)
    assert not any(name.startswith("champion") for name in found.figures)


def test_a_champion_that_cannot_score_todays_features_is_replaced(lengths):
    wider = {"city": "VARCHAR", "distance": "DOUBLE", "gone": "DOUBLE"}
    champion = replace(number(4, Off(0)), columns=wider)
    found = judge(lengths, number(5, Off(1)), champion, whole({"Boston": 60}))
    assert found.decision == "promoted"
    assert found.reason == (
        "champion 4 cannot score today's features: trips: the model was fitted on 'gone', which "
        "these rows lack; compute the feature, or train a model without it"
    )
    assert (found.figures["challenger_mae"], found.figures["champion_version"]) == (1, 4)
    assert "champion_mae" not in found.figures


def test_a_challenger_that_cannot_predict_is_an_error_and_no_verdict(lengths):
    with pytest.raises(ModelRefused, match="predict of 60 rows failed"):
        judge(lengths, number(2, object()), number(1, Off(1)), whole({"Boston": 60}))


def test_only_a_refusal_for_want_of_rows_is_not_judged():
    assert GateVerdict("refused", f"{NOT_JUDGED}no rows", {}).is_unjudged
    assert not GateVerdict("refused", "not better beyond noise", {}).is_unjudged
    assert not GateVerdict("promoted", f"{NOT_JUDGED}no rows", {}).is_unjudged
