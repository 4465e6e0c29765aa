"""A use case opened for a notebook: frames, scores and pictures; nothing is ever written."""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.dummy import DummyClassifier

import ml_platform
from ml_platform.errors import PlatformError
from ml_platform.features import assemble
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.notebook import OpenedUseCase
from ml_platform.notebook.arguments import read_moment, read_range
from ml_platform.scoring import score
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit
from ml_platform.training.training_set import collect
from tests import trips_use_case as trips
from tests.served import Deployment, deployed

COMMIT = Commit("test", "0")
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Trips of 30 days below `use_cases` and `data`; version 1 has served from the 20th on."""
    root = tmp_path_factory.mktemp("project")
    with deployed(root) as made:
        case, lake, now = made.use_case, made.lake, datetime(2024, 4, 9, tzinfo=UTC)
        served = trips.days(20, 30)
        score(lake, made.registry, case, served, COMMIT)
        report_drift(lake, made.registry, case, served, COMMIT)
        report_performance(lake, case, served, COMMIT, now=now)
        (root / "use_cases").mkdir()
        (root / "trips").rename(root / "use_cases" / "trips")
        yield made


@pytest.fixture(scope="module")
def opened(project: Deployment) -> Iterator[OpenedUseCase]:
    with ml_platform.open("trips", project.root) as found:
        yield found


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> OpenedUseCase:
    """Trips whose delay is a number, without a lake."""
    root = tmp_path_factory.mktemp("elsewhere")
    return OpenedUseCase(trips.settings(root), trips.write_folder(root, "regression"))


@pytest.fixture(scope="module")
def case(elsewhere: OpenedUseCase) -> UseCase:
    return elsewhere.use_case


def test_the_package_is_imported_without_what_a_notebook_needs() -> None:
    script = (
        "import sys, ml_platform; print(sorted({'pandas', 'duckdb', 'pydantic'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("given", "first", "last"),
    [
        ("2024-03-02", 2, 2),
        ("2024-03-02...2024-03-04", 2, 4),
        (("2024-03-02", "2024-03-04"), 2, 4),
        ([date(2024, 3, 2), pd.Timestamp("2024-03-04 12:00")], 2, 4),
        (date(2024, 3, 2), 2, 2),
        (trips.days(2, 4), 2, 4),
    ],
)
def test_a_range_is_read_in_all_the_ways_in_which_people_write_it(
    case: UseCase, given: Any, first: int, last: int
) -> None:
    assert read_range(case, given) == trips.days(first, last)


def test_the_last_day_of_a_range_of_hours_is_whole(tmp_path: Path) -> None:
    folder = trips.write_folder(tmp_path, "binary").folder
    spec = folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("daily", "hourly"))
    hourly = load_use_case(folder)
    assert read_range(hourly, (date(2024, 3, 2), date(2024, 3, 3))) == trips.days(2, 3)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("2024-3-2", "write '2024-03-02'"),
        ("2024-03-04...2024-03-02", "the first partition is after the last"),
        (("2024-03-04", "2024-03-02"), "the first partition is after the last"),
        (("2024-03-04", 7), "a bound of a range is a time or a partition such as '2024-03-01'"),
        (("2024-03-04", pd.NaT), "not a NaTType"),
        (7, r"a range is '2024-03-01\.\.\.2024-03-01', one partition, or a pair .*; not 7"),
        (("a", "b", "c"), "a pair of the first and the last"),
    ],
)
def test_what_is_no_range_is_refused_in_a_sentence(case: UseCase, given: Any, problem: str) -> None:
    with pytest.raises(PlatformError, match=problem):
        read_range(case, given)


@pytest.mark.parametrize(
    "given",
    ["2024-03-02", "2024-03-02 05:00:00Z", date(2024, 3, 2),
     pd.Timestamp("2024-03-02"), pd.Timestamp("2024-03-02 05:00", tz="UTC"), trips.at(2)],
)  # fmt: skip
def test_a_moment_without_a_zone_is_in_that_of_the_use_case(case: UseCase, given: Any) -> None:
    assert read_moment(case, given, "cutoff") == trips.at(2)


def test_pictures_of_another_kind_of_label_are_refused(elsewhere: OpenedUseCase) -> None:
    frame = pd.DataFrame({"predicted": [1.0, 2.0], "label": [1.5, None]})
    assert elsewhere.plot_residuals(frame).png().startswith(PNG)
    assert elsewhere.plot_predictions(frame)._repr_png_().startswith(PNG)
    with pytest.raises(PlatformError, match=r"its label is regression, .* take plot_residuals"):
        elsewhere.plot_roc(frame)
    with pytest.raises(PlatformError, match="none of the 2 predictions has a label yet"):
        elsewhere.plot_residuals(frame.assign(label=None))
    with pytest.raises(PlatformError, match="this one lacks label"):
        elsewhere.plot_residuals(frame[["predicted"]])


def test_a_use_case_without_a_lake_says_so(elsewhere: OpenedUseCase) -> None:
    assert "there is no lake" in repr(elsewhere)
    with pytest.raises(PlatformError, match="there is no lake"):
        elsewhere.predictions()
    with pytest.raises(PlatformError, match="no model was registered yet"):
        elsewhere.score(pd.DataFrame({"city": ["Rome"]}), 1)
    assert not elsewhere.settings.root.exists()


def test_a_project_is_found_from_its_subfolders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips.write_folder(tmp_path / "use_cases", "binary")
    notebooks = tmp_path / "notebooks" / "mine"
    notebooks.mkdir(parents=True)
    monkeypatch.chdir(notebooks)
    found = ml_platform.open("trips")
    assert found.settings.root == tmp_path / "data"
    with pytest.raises(PlatformError, match=r"no use case 'trip'\. Did you mean 'trips'\?"):
        ml_platform.open("trip")
    with pytest.raises(PlatformError, match="a use case is named by a text, not by a int"):
        ml_platform.open(7)  # type: ignore[arg-type]
    with pytest.raises(PlatformError, match=r"no folder of use cases .*project=…"):
        ml_platform.open("trips", tmp_path / "notebooks")
    monkeypatch.setenv("ML_PLATFORM_THREADS", "none")
    with pytest.raises(PlatformError, match="ML_PLATFORM_THREADS=none: Input should be a valid"):
        ml_platform.open("trips")


@pytest.mark.slow
def test_what_is_opened_says_what_there_is(opened: OpenedUseCase) -> None:
    said = repr(opened)
    assert said.startswith("trips: Trips\n")
    assert "440 rows in 2024-03-20...2024-03-30" in said
    assert "version 1, since 2024-03-20T00:00:00-04:00" in said
    assert "<td" in opened._repr_html_()
    assert opened.columns["source"].to_dict() == {
        "city": "examples of trips", "distance": "examples of trips",
        "pace__pace": "feature view pace",
    }  # fmt: skip


@pytest.mark.slow
def test_a_training_set_is_what_training_is_given(
    project: Deployment, opened: OpenedUseCase
) -> None:
    found = opened.training_set("2024-03-20")
    with project.lake.cursor(project.use_case.timezone) as cursor:
        snapshot = project.lake.snapshot(cursor)
        data = collect(cursor, project.lake, project.use_case, trips.at(20), snapshot)
    for part, frame in (("fit", data.fitted), ("holdout", data.holdout)):
        rows = found[found["part"] == part].drop(columns="part").reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, frame)
    shorter = opened.training_set("2024-03-20", window="10d")
    assert len(shorter) < len(found)
    with pytest.raises(PlatformError, match=r"labelled rows to fit on .* take a later cutoff"):
        opened.training_set("2024-03-07")
    with pytest.raises(PlatformError, match="window: 'ten' "):
        opened.training_set("2024-03-20", window="ten")
    with pytest.raises(PlatformError, match="'soon' is neither a time nor a partition"):
        opened.training_set("soon")


@pytest.mark.slow
def test_predictions_stand_beside_the_labels_known_by_then(opened: OpenedUseCase) -> None:
    found = opened.predictions()
    assert list(found) == [
        "trip", "event_time", "probability", "label", "label_known_at", "model_version",
        "snapshot", "scored_at",
    ]  # fmt: skip
    assert len(found) == 440
    assert found["label"].notna().all()
    then = opened.predictions("2024-03-20", known_by="2024-03-20 12:00")
    assert then["label"].notna().tolist() == (then["event_time"] < trips.at(20, 6)).tolist()
    assert then["label_known_at"].notna().sum() == then["label"].notna().sum() > 0
    nothing = "no predictions in .*; there are 440 rows in 2024-03-20"
    with pytest.raises(PlatformError, match=nothing):
        opened.predictions("2024-03-05")
    labels = opened.labels
    assert list(labels) == ["trip", "event_time", "label", "label_known_at"]
    assert len(labels) == 30 * 40


@pytest.mark.slow
def test_scores_are_those_that_are_stored(project: Deployment, opened: OpenedUseCase) -> None:
    landed = trips.trips(1, 30)
    rows = landed[landed["started_at"] >= trips.at(20)].drop(columns="delay")
    joined = opened.features(rows)
    stored = opened.predictions().set_index("trip").loc[rows["trip"], "probability"]
    scored = opened.score(joined)
    assert scored.index.equals(rows.index)
    assert scored["probability"].tolist() == stored.tolist()
    assert opened.score(joined, version=1).equals(scored)
    explained = opened.explain(joined.head(3), samples=8)
    assert explained.index.equals(joined.head(3).index)
    assert explained["prediction"].equals(scored.iloc[:3, 0].rename("prediction"))
    adding = explained.drop(columns="prediction").sum(axis=1)
    assert adding.to_numpy() == pytest.approx(explained["prediction"].to_numpy(), rel=1e-9)
    with project.lake.cursor(project.use_case.timezone) as cursor:
        snapshot = project.lake.snapshot(cursor)
        frame = assemble(cursor, project.lake, project.use_case, trips.days(20, 30), snapshot)
    columns = [*opened.columns.index]
    pd.testing.assert_frame_equal(joined[columns].reset_index(drop=True), frame[columns])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("frame", "version", "problem"),
    [
        ([1], None, "rows to score are a pandas DataFrame, not a list"),
        (pd.DataFrame({"city": ["Rome"]}), None, r"fitted on distance, pace__pace, .*`features\("),
        (pd.DataFrame({"city": ["Rome"]}), "1", "a version is a number such as 3, not a str"),
        (pd.DataFrame({"city": ["Rome"]}), 9, "trips has no model version 9"),
        (pd.DataFrame({"city": ["Rome"], "distance": [1], "pace__pace": [1.0]}), 1,
         r"column 'distance' \(DOUBLE\) is int64"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_refused_in_a_sentence(
    opened: OpenedUseCase, frame: Any, version: Any, problem: str
) -> None:
    with pytest.raises(PlatformError, match=problem):
        opened.score(frame, version)


@pytest.mark.slow
def test_reports_and_decisions_are_frames(opened: OpenedUseCase) -> None:
    report = opened.performance("2024-03-20...2024-03-21")
    assert set(report["partition"]) == {"2024-03-20", "2024-03-21"}
    assert {"revision", "metric", "value", "passed", "labelled"} <= {*report}
    assert set(opened.drift()["column_name"]) == {"city", "distance", "pace__pace", "probability",
                                                  "label"}  # fmt: skip
    assert opened.history[["version", "decision"]].to_numpy().tolist() == [[1, "promoted"]]
    assert opened.champion == 1
    with pytest.raises(PlatformError, match=r"no drift report in .*; there are 55 rows in"):
        opened.drift("2024-03-01")


@pytest.mark.slow
def test_pictures_show_themselves(opened: OpenedUseCase, tmp_path: Path) -> None:
    backtest = opened.backtest(DummyClassifier(), "2024-03-20...2024-03-30", retrain="never")
    pictures = [
        opened.plot_performance(), opened.plot_performance("2024-03-20", "log_loss"),
        opened.plot_drift(), opened.plot_drift("2024-03-20"), opened.plot_predictions(),
        opened.plot_roc(), opened.plot_calibration("2024-03-20...2024-03-22"),
        opened.plot_precision_recall(), opened.plot_backtest(backtest),
        opened.plot_roc(backtest.predictions),
    ]  # fmt: skip
    assert all(picture._repr_png_().startswith(PNG) for picture in pictures)
    pictures[0].save(tmp_path / "performance.svg")
    assert "<svg" in (tmp_path / "performance.svg").read_text()
    assert pictures[0].axes.get_title() == "trips: roc_auc by partition"
    lines = {line.get_label() for line in pictures[0].axes.get_lines()}
    assert {"as first reported", "as now known"} <= lines
    with pytest.raises(PlatformError, match=r"no metric 'roc'\. Did you mean 'roc_auc'\?"):
        opened.plot_performance(metric="roc")
    with pytest.raises(PlatformError, match="plot_backtest takes what backtest returns, not a int"):
        opened.plot_backtest(3)


@pytest.mark.slow
def test_bounds_that_are_broken_are_marked(project: Deployment) -> None:
    spec = project.root / "use_cases" / "trips" / "use_case.yaml"
    before = spec.read_text()
    spec.write_text(
        before.replace("reference_rows: 200}", "reference_rows: 200, performance: {min: 0.999}}")
    )
    with ml_platform.open("trips", project.root) as bounded:
        axes = bounded.plot_performance().axes
    spec.write_text(before)
    assert "at least 0.999" in {line.get_label() for line in axes.get_lines()}


def test_classes_are_drawn_by_name(tmp_path: Path) -> None:
    case = trips.write_folder(tmp_path, "multiclass")
    opened = OpenedUseCase(trips.settings(tmp_path), case)
    names = np.array(["early", "late", "late"], dtype=object)
    frame = pd.DataFrame({"predicted": names, "probabilities": [{}] * 3, "label": names[::-1]})
    assert opened.plot_confusion(frame).png().startswith(PNG)
    assert opened.plot_predictions(frame).png().startswith(PNG)


@pytest.mark.slow
def test_nothing_can_be_written(project: Deployment, opened: OpenedUseCase) -> None:
    def files() -> dict[Path, bytes]:
        found = [path for path in opened.settings.root.rglob("*") if path.is_file()]
        # SQLite notes in its index who reads.
        return {path: path.read_bytes() for path in found if path.suffix != ".sqlite-shm"}

    before = files()
    rows = trips.trips(25, 25).drop(columns="delay")
    opened.score(opened.features(rows, at="2024-03-26"))
    opened.backtest(DummyClassifier(), "2024-03-28...2024-03-30", retrain="never")
    opened.plot_performance()
    assert files() == before
    with opened.lake.cursor() as cursor, pytest.raises(Exception, match="read-only mode"):
        cursor.execute("DELETE FROM lake.trips.labels")
