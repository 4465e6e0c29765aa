import re
import warnings
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import pandas as pd
import pytest

from ml_platform.errors import EmptyPartition
from ml_platform.monitoring import (
    drift_table,
    render_drift_html,
    report_drift,
    report_path,
    report_url,
    stored_drift,
)
from ml_platform.monitoring.columns import (
    current_frame,
    monitored_columns,
    vanished_columns,
)
from ml_platform.monitoring.latest import latest_drift
from ml_platform.monitoring.readings import read_columns
from ml_platform.scoring import score
from ml_platform.spec.duration import Duration
from ml_platform.spec.inputs import Partitions
from ml_platform.spec.watching import Drift, Monitoring
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    root = tmp_path_factory.mktemp("drift")
    folder = write_folder(root, "binary")
    monitoring = Monitoring(window=Duration(3, "d"), drift=Drift(min_rows=60), reference_rows=200)
    use_case = folder.model_copy(update={"monitoring": monitoring})
    lake, registry = Lake(settings(root)), KeptModels()
    rows = trips(11, 30)
    rows.loc[rows["started_at"] >= at(27), "distance"] += 40
    rows.loc[rows["started_at"] >= at(27), "city"] = "Denver"
    land(lake, use_case, rows, days(11, 30))
    version = registry.train(lake, use_case, days(11, 21))
    promote(lake, use_case, version, at(22))
    score(lake, registry, use_case, days(22, 30), COMMIT)
    yield SimpleNamespace(lake=lake, registry=registry, use_case=use_case, version=version)
    lake.close()


def report(case, first, last, use_case=None):
    window_range = Window(window(first).start, window(last).end)
    return report_drift(case.lake, case.registry, use_case or case.use_case, window_range, COMMIT)


def stored(case):
    table = drift_table(case.use_case)
    columns = [c for c in table.columns if c not in table.stamps]
    with case.lake.cursor() as cursor:
        cursor.execute(
            f"SELECT {', '.join(columns)} FROM {table.sql} WHERE window_at < ? ORDER BY ALL",
            [at(31)],
        )
        return cursor.fetch_df()


def window(day):
    start = at(1) + timedelta(days=day - 1)
    return Window(start, start + timedelta(days=1))


def test_a_shift_drifts_the_columns_it_reaches_and_fails_the_window(case):
    run = report(case, 22, 30)
    before, after = run.windows[window(26)], run.windows[window(30)]
    assert not before.failed
    assert {"city", "distance", "pace__pace"} <= set(after.drifted)
    assert after.failed
    assert after.version == case.version
    assert after.share == pytest.approx(len(after.drifted) / 5)
    city = {column.column: column for column in after.columns}["city"]
    assert (city.new_categories, city.current_rows, city.status) == (1, 120, "scored")
    assert [column.kind for column in after.columns] == [
        "request", "request", "feature", "prediction", "label",
    ]  # fmt: skip


def test_windows_before_the_first_promotion_are_skipped_with_a_reason(case):
    run = report(case, 20, 23)
    assert list(run.windows) == [window(22), window(23)]
    assert "no promotion is effective" in str(run.skipped[window(20)])


def test_windows_without_rows_are_skipped_with_a_reason(case):
    run = report(case, 30, 34)
    assert list(run.windows) == [window(30), window(31), window(32)]
    assert "no rows that trail up" in str(run.skipped[window(33)])
    assert {c.status for c in run.windows[window(32)].columns} == {"too few rows"}
    assert run.windows[window(32)].share is None
    assert run.windows[window(32)].largest_score is None
    assert not run.windows[window(32)].failed


def test_a_range_equals_its_windows_and_twice_is_once(case):
    report(case, 22, 30)
    of_a_range = stored(case)
    assert len(of_a_range) == 9 * 5
    snapshot = report(case, 22, 30).snapshot
    assert {report(case, day, day).snapshot for day in range(22, 31)} == {snapshot}
    with case.lake.cursor() as cursor:
        cursor.execute(f"DELETE FROM {drift_table(case.use_case).sql}")
    for day in range(22, 31):
        report(case, day, day)
    pd.testing.assert_frame_equal(stored(case), of_a_range)


def test_labels_that_were_not_known_yet_do_not_count(case):
    run = report(case, 30, 30)
    columns = {column.column: column for column in run.windows[window(30)].columns}
    # Labels are known 6 hours after a trip starts, so those from 18:00 on lack.
    assert columns["label"].current_rows == 120 - 7


def test_predictions_that_were_never_made_are_not_judged(case):
    run = report(case, 22, 22)
    columns = {column.column: column for column in run.windows[window(22)].columns}
    assert (columns["probability"].status, columns["probability"].current_rows) == (
        "too few rows", 40,
    )  # fmt: skip
    assert columns["distance"].current_rows == 120


def test_drift_is_reported_before_anything_was_predicted_or_labelled(case):
    with case.lake.cursor(case.use_case.timezone) as cursor:
        before = cursor.execute(
            "SELECT min(snapshot_id) FROM lake.snapshots() WHERE len(map_keys(changes)) > 0 "
            "AND list_contains(map_values(changes)[1], 'trips.pace_features')"
        ).fetchone()[0]
        window_range = Window(at(22), at(25))
        readings = read_columns(cursor, case.lake, case.use_case, window_range, before)
    assert len(readings["distance"].times) == 120
    assert [len(readings[name].times) for name in ("probability", "label")] == [0, 0]


def test_a_column_that_the_champion_was_trained_with_and_is_gone_has_drifted(case):
    model = case.registry.load(case.use_case, case.version)
    examples = case.use_case.examples.model_copy(update={"request": {"city": "VARCHAR"}})
    without = case.use_case.model_copy(update={"examples": examples})
    assert [column.name for column in vanished_columns(without, model.columns)] == ["distance"]
    run = report_drift(case.lake, case.registry, without, days(25, 25), COMMIT)
    columns = {column.column: column for column in run.windows[window(25)].columns}
    assert (columns["distance"].status, columns["distance"].drifted) == ("absent", True)


@pytest.mark.slow
def test_scores_of_the_lake_are_those_of_evidentlys_report_of_the_same_rows(case):
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    run, use_case = report(case, 22, 30), case.use_case
    columns = monitored_columns(use_case)
    reference = case.registry.load(use_case, case.version).reference
    reference = reference.assign(**{c.name: c.values(reference[c.name]) for c in columns})
    with case.lake.cursor(use_case.timezone) as cursor:
        window_range, snapshot = Window(at(27), at(30)), case.lake.snapshot(cursor)
        readings = read_columns(cursor, case.lake, use_case, window_range, snapshot)
    current = current_frame(readings, at(27), at(30))
    definition = DataDefinition(
        numerical_columns=[c.name for c in columns if c.numeric],
        categorical_columns=[c.name for c in columns if not c.numeric],
    )
    preset = DataDriftPreset(num_method="wasserstein", cat_method="jensenshannon")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        snapshot = Report([preset]).run(
            Dataset.from_pandas(current, data_definition=definition),
            Dataset.from_pandas(reference, data_definition=definition),
        )
    metrics = [m for m in snapshot.dict()["metrics"] if "column" in m["config"]]
    theirs = {m["config"]["column"]: float(m["value"]) for m in metrics}
    ours = {column.column: column.evidently_score for column in run.windows[window(29)].columns}
    assert ours == pytest.approx(theirs, abs=1e-9)


def test_a_page_is_evidentlys_report_and_is_drawn_once(case):
    report(case, 22, 30)
    path = render_drift_html(case.lake, case.registry, case.use_case, window(30))
    assert path == report_path(case.lake.settings, case.use_case, window(30))
    text = path.read_text()
    assert "trips, drift of 2024-03-30" in text
    assert "Wasserstein distance (normed)" in text
    assert list(path.parent.glob("*.part")) == []
    drawn = path.stat().st_mtime_ns
    render_drift_html(case.lake, case.registry, case.use_case, window(30))
    assert path.stat().st_mtime_ns == drawn


def test_a_page_of_an_older_report_is_drawn_again(case):
    report(case, 22, 30)
    path = report_path(case.lake.settings, case.use_case, window(29))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("<!-- drift report: version 7, snapshot 1 -->\n")
    render_drift_html(case.lake, case.registry, case.use_case, window(29))
    assert "drift of 2024-03-29" in path.read_text()


def test_the_page_and_the_report_show_the_nulls_of_a_dying_feed(case, tmp_path):
    use_case = write_folder(tmp_path, "binary", name="dying").model_copy(
        update={"monitoring": case.use_case.monitoring}
    )
    lake, registry = Lake(settings(tmp_path)), KeptModels()
    rows = trips(11, 30)
    rows.loc[(rows["started_at"] >= at(27)) & (rows["trip"] % 20 > 0), ["distance", "city"]] = None
    land(lake, use_case, rows, days(11, 30))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 21)), at(22))
    run = report_drift(lake, registry, use_case, days(30, 30), COMMIT)
    found = {column.column: column for column in run.windows[window(30)].columns}
    assert (found["distance"].status, found["distance"].nulls_drifted) == ("too few values", True)
    assert {"city", "distance", "pace__pace"} <= set(run.windows[window(30)].drifted)
    latest = latest_drift(lake, use_case)
    assert not latest.passed
    named = [str(column) for column in latest.columns]
    assert any(re.fullmatch(r"distance \(nulls [1-3]% → 9[5-7]%\)", each) for each in named), named
    text = render_drift_html(lake, registry, use_case, window(30)).read_text()
    assert "<td>distance</td><td>yes</td><td>too few values</td>" in text
    lake.close()


def test_a_page_names_what_it_cannot_draw(case):
    report(case, 22, 22)
    model = case.registry.load(case.use_case, case.version)
    empty = model.reference.assign(distance=float("nan"))
    registry = SimpleNamespace(load=lambda _case, _version: replace(model, reference=empty))
    path = report_path(case.lake.settings, case.use_case, window(22))
    path.unlink(missing_ok=True)
    text = render_drift_html(case.lake, registry, case.use_case, window(22)).read_text()
    assert "having no value on one of the sides: distance." in text
    path.unlink()


def test_a_page_of_a_window_without_report_says_what_to_do(case):
    with pytest.raises(EmptyPartition, match=r"materialise trips/drift_report"):
        render_drift_html(case.lake, case.registry, case.use_case, window(5))


def test_stored_summaries_name_the_drifted_columns(case):
    report(case, 22, 30)
    (summary,) = stored_drift(case.lake, case.use_case, window(30))
    assert set(summary.drifted) >= {"city", "distance"}
    assert (summary.judged, summary.version) == (5, case.version)
    assert summary.largest_score > 0.3
    assert summary in stored_drift(case.lake, case.use_case)


def test_the_link_of_an_hourly_window_is_a_safe_address(case):
    url = report_url(case.lake.settings, case.use_case, window(30))
    assert url == "http://127.0.0.1:3001/trips/drift/2024-03-30"
    partitions = Partitions(cadence="hourly", start=at(11).date(), timezone=case.use_case.timezone)
    hourly = case.use_case.model_copy(update={"partitions": partitions})
    hour = Window(at(13, 1), at(13, 1) + timedelta(hours=1))
    assert report_url(case.lake.settings, hourly, hour).endswith("/2024-03-13-01%3A00")
