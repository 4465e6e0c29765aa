"""What the promotion gate says of models whose quality is known, with no lake."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_platform.registry import ModelVersion
from ml_platform.spec.modelling import Gate
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.training import judge, judged_stretch
from ml_platform.training.verdict_picture import draw_verdict
from tests.trips_use_case import at, write_folder


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


@pytest.fixture
def use_case(tmp_path) -> UseCase:
    return write_folder(tmp_path, "binary")


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
    assert judged_stretch(challenger, later) == Window(at(18), at(20))
    found = judge(use_case, challenger, later, rows())
    assert found.figures["rows"] == 800


def test_where_the_champion_has_seen_it_all_the_challenger_is_refused(use_case):
    later = version(1, ByDistance(2), until=20, cutoff=25)
    challenger = version(2, ByDistance(0))
    assert judged_stretch(challenger, later) is None
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
