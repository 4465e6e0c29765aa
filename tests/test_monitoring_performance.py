from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest

from ml_platform.alerts import find_conditions
from ml_platform.errors import EmptyPartition, LabelsNotArrived
from ml_platform.metrics import measure
from ml_platform.monitoring import (
    performance_table,
    report_performance,
    retraining_verdicts,
    window_verdicts,
)
from ml_platform.monitoring.latest import latest_performance
from ml_platform.scoring import score
from ml_platform.spec.watching import Bounds, Monitoring, Performance
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, ZONE, at, days, land, settings, trips, write_folder

LATER = datetime(2024, 6, 1, tzinfo=ZONE)


@pytest.fixture
def case(tmp_path):
    bounds = Performance(min=0.6, min_rows=20)
    use_case = write_folder(tmp_path, "binary").model_copy(
        update={"monitoring": Monitoring(performance=bounds)}
    )
    lake, registry = Lake(settings(tmp_path)), KeptModels()
    rows = trips(11, 16)
    land(lake, use_case, rows, days(11, 16))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 13)), at(14))
    score(lake, registry, use_case, days(14, 16), COMMIT)
    yield SimpleNamespace(lake=lake, use_case=use_case, rows=rows)
    lake.close()


def window(day):
    return Window(at(day), at(day + 1))


def report(case, first, last, now=LATER, use_case=None):
    return report_performance(
        case.lake, use_case or case.use_case, days(first, last), COMMIT, now=now
    )


def stored(case, revision, columns="value, labelled", metric="brier"):
    table = performance_table(case.use_case).sql
    with case.lake.cursor(case.use_case.timezone) as cursor:
        return cursor.execute(
            f"SELECT {columns} FROM {table} WHERE revision = ? AND metric = ? ORDER BY window_at",
            [revision, metric],
        ).fetchall()


def test_a_window_is_measured_on_its_labelled_predictions(case):
    said = report(case, 14, 14).windows[window(14)]
    with case.lake.cursor() as cursor:
        frame = cursor.execute(
            "SELECT probability, label FROM lake.trips.predictions JOIN lake.trips.labels "
            "USING (trip, event_time) WHERE event_time < ?",
            [at(15)],
        ).fetch_df()
    assert said.metrics == pytest.approx(measure("binary", frame["label"], frame))
    assert (said.rows, said.labelled, said.coverage, said.versions) == (40, 40, 1.0, (1,))
    assert (said.status, said.passed) == ("ok", True)


def test_the_models_metric_and_those_with_bounds_have_a_standard_error(case):
    report(case, 14, 14)
    for metric, has_one in (("roc_auc", True), ("brier", False)):
        ((error,),) = stored(case, "current", "standard_error", metric)
        assert (error is not None) == has_one
    assert 0 < stored(case, "first", "standard_error", "roc_auc")[0][0] < 0.3


def test_what_was_first_reported_stays_while_labels_arrive(case):
    then = at(14, 20)
    first = report(case, 14, 14, now=then).windows[window(14)]
    assert first.labelled < 40
    report(case, 14, 14)
    assert stored(case, "first") == [(first.metrics["brier"], first.labelled)]
    assert stored(case, "current")[0][1] == 40
    report(case, 14, 16)
    assert stored(case, "first")[0] == (first.metrics["brier"], first.labelled)


@pytest.mark.slow
def test_a_first_report_of_long_ago_counts_the_labels_of_its_time(case):
    use_case = case.use_case
    no_wait = use_case.label.model_copy(update={"horizon": type(use_case.label.horizon)(0, "d")})
    report(case, 14, 14, use_case=use_case.model_copy(update={"label": no_wait}))
    assert [labelled for _, labelled in stored(case, "first")] == [33]
    assert [labelled for _, labelled in stored(case, "current")] == [40]


@pytest.mark.slow
def test_twice_is_once_also_at_another_time(case):
    before = report(case, 14, 16).snapshot
    assert report(case, 14, 16, now=LATER + timedelta(days=3)).snapshot == before
    assert report(case, 15, 15).snapshot == before


def test_too_few_labels_are_measured_later(case):
    said = report(case, 14, 14, now=at(14, 9)).windows[window(14)]
    assert (said.status, said.metrics, said.passed) == ("too few labels", {}, None)
    assert stored(case, "first", "value, status") == [(None, "too few labels")]
    report(case, 14, 14, now=at(14, 20))
    (value, status), *_ = stored(case, "first", "value, status")
    assert (value is not None, status) == (True, "ok")


@pytest.mark.slow
def test_labels_that_have_not_arrived_are_an_error_or_a_reason(case):
    with pytest.raises(LabelsNotArrived, match="none of the 40 predictions for 2024-03-16"):
        report(case, 16, 16, now=at(16, 1))
    run = report(case, 15, 16, now=at(16, 1))
    assert list(run.windows) == [window(15)]
    assert "none of the 40 predictions" in str(run.skipped[window(16)])


@pytest.mark.slow
def test_a_window_without_predictions_is_an_error_or_a_reason(case):
    with pytest.raises(EmptyPartition, match="no predictions for 2024-03-13"):
        report(case, 13, 13)
    assert "no predictions" in str(report(case, 13, 14).skipped[window(13)])


def test_a_skipped_window_keeps_what_was_first_reported(case):
    report(case, 14, 15)
    said = stored(case, "first")
    report(case, 14, 15, now=at(14, 1))
    assert (stored(case, "first"), stored(case, "current")) == (said, [])


def test_a_metric_out_of_bounds_fails_the_window(case):
    strict = Monitoring(performance=Performance(min=1.5, min_rows=20))
    use_case = case.use_case.model_copy(update={"monitoring": strict})
    assert report(case, 14, 14, use_case=use_case).windows[window(14)].passed is False
    assert stored(case, "current", "passed", "roc_auc") == [(False,)]
    assert stored(case, "current", "passed", "brier") == [(None,)]


@pytest.mark.slow
def test_several_metrics_have_bounds_and_one_that_fails_fails_the_window(case):
    bounds = Performance(min=0.6, bounds={"log_loss": Bounds(max=0.01)}, min_rows=20)
    use_case = case.use_case.model_copy(update={"monitoring": Monitoring(performance=bounds)})
    said = report(case, 14, 15, use_case=use_case).windows[window(15)]
    assert (said.kept, said.passed) == ({"roc_auc": True, "log_loss": False}, False)
    assert stored(case, "current", "passed", "log_loss") == [(False,), (False,)]
    verdicts = window_verdicts(case.lake, use_case, "performance")
    assert verdicts == [(window(14), False), (window(15), False)]
    chosen = use_case.retrain.model_copy(update={"metrics": ("roc_auc",)})
    counted = use_case.model_copy(update={"retrain": chosen})
    counts = retraining_verdicts(case.lake, counted, "performance")
    assert counts == [(window(14), True), (window(15), True)]
    latest = latest_performance(case.lake, use_case)
    assert (latest.metric, latest.bounds) == ("log_loss", "at most 0.01")
    assert latest.value == said.metrics["log_loss"]


@pytest.mark.slow
def test_a_metric_that_is_undefined_has_no_value(case):
    late = case.rows.assign(delay=99.0)
    land(case.lake, case.use_case, late, days(11, 16))
    said = report(case, 14, 14).windows[window(14)]
    assert "roc_auc" not in said.metrics
    assert said.passed is None
    assert stored(case, "current", "value, status", "roc_auc") == [(None, "undefined")]


@pytest.mark.slow
def test_after_a_break_partitions_with_few_labels_are_no_recovery(case):
    demanding = Performance(min=0.6, min_rows=20, bounds={"brier": Bounds(max=0.001)})
    use_case = case.use_case.model_copy(update={"monitoring": Monitoring(performance=demanding)})
    broken = report(case, 14, 14, use_case=use_case).windows[window(14)]
    # Labels of the small hours alone are known: nobody can say how the others turned out.
    few = report(case, 15, 15, now=at(15, 8), use_case=use_case).windows[window(15)]
    assert (broken.passed, few.passed, few.status) == (False, None, "too few labels")
    assert 0 < few.labelled < 20

    latest = latest_performance(case.lake, use_case)
    assert (latest.window, latest.passed) == (window(14), False)
    assert [(each.window, each.why) for each in latest.unjudged] == [(window(15), "too few labels")]
    # Neither a failure more nor an end of them.
    assert retraining_verdicts(case.lake, use_case, "performance") == [(window(14), False)]
    (alert,) = [
        condition
        for condition in find_conditions(case.lake, use_case, at(15, 9)).conditions
        if condition.kind == "performance"
    ]
    assert alert.body.splitlines()[1] == (
        "Not judged since: 2024-03-15 (too few labels): that is not a recovery."
    )

    report(case, 15, 15, use_case=use_case)
    assert latest_performance(case.lake, use_case).unjudged == ()
