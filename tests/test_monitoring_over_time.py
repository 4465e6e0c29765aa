"""What pages draw over time equals what the rows say, counted by pandas."""

from types import SimpleNamespace

import numpy as np
import pytest

from ml_platform.monitoring.over_time import (
    LARGEST_CLASSES,
    OTHER,
    QUANTILES,
    label_delays,
    predicted_windows,
)
from ml_platform.scoring import score
from ml_platform.scoring.batch import predictions_table
from ml_platform.storage import Lake, replace_windows
from ml_platform.web.timelines import delay_diagram, predictions_diagram
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder


@pytest.fixture(scope="module", params=["binary", "multiclass"])
def case(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    use_case = write_folder(root, request.param)
    lake, registry = Lake(settings(root)), KeptModels()
    land(lake, use_case, trips(11, 16), days(11, 16))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 13)), at(14))
    score(lake, registry, use_case, days(14, 16), COMMIT)
    yield SimpleNamespace(lake=lake, use_case=use_case)
    lake.close()


def stored(case, table):
    with case.lake.cursor(case.use_case.timezone) as cursor:
        return cursor.execute(f"FROM lake.trips.{table} ORDER BY window_start").fetch_df()


def test_predictions_are_distributed_as_their_rows(case):
    found = predicted_windows(case.lake, case.use_case, 400)
    rows = list(stored(case, "predictions").groupby("window_start"))
    assert [each.rows for each in found] == [len(part) for _, part in rows]
    for each, (_, part) in zip(found, rows, strict=True):
        if case.use_case.label.task == "binary":
            assert each.quantiles == pytest.approx(np.quantile(part["probability"], QUANTILES))
        else:
            assert each.shares == pytest.approx(
                {**dict.fromkeys(found[0].shares, 0.0),
                 **part["predicted"].value_counts(normalize=True)}
            )  # fmt: skip
    assert predicted_windows(case.lake, case.use_case, 2) == found[-2:]
    assert predicted_windows(case.lake, case.use_case, 400, until=at(15)) == found[:1]
    drawn = predictions_diagram(case.use_case, found)
    assert [point.label.partition(":")[0] for point in drawn.points] == [
        case.use_case.calendar.key(each.window) for each in found
    ]


def test_labels_are_as_late_as_their_rows(case):
    found = label_delays(case.lake, case.use_case, 400)
    labels = stored(case, "labels")
    labels["delay"] = (labels["known_at"] - labels["event_time"]).dt.total_seconds()
    for each, (_, part) in zip(found, labels.groupby("window_start"), strict=True):
        assert each.labels == len(part)
        seconds = each.median.total_seconds(), each.most.total_seconds()
        assert seconds == pytest.approx(np.quantile(part["delay"], [0.5, 0.9]), abs=1e-3)
    _, unit = delay_diagram(case.use_case, found)
    assert unit in {"seconds", "minutes", "hours", "days"}


def test_rare_classes_are_counted_together(tmp_path):
    use_case = write_folder(tmp_path, "multiclass")
    lake = Lake(settings(tmp_path))
    many = 3 * LARGEST_CLASSES
    rows = f"""SELECT i AS trip, TIMESTAMPTZ '2024-03-15 12:00:00Z' AS event_time,
        'class ' || (i % {many}) AS predicted, MAP {{}}::MAP(VARCHAR, DOUBLE) AS probabilities,
        1 AS model_version, 1 AS snapshot, now() AS scored_at FROM range({2 * many + 1}) t(i)"""
    with lake.cursor(use_case.timezone) as cursor:
        replace_windows(
            lake, cursor, predictions_table(use_case), rows, time="event_time",
            calendar=use_case.calendar, window_range=days(15, 15), commit=COMMIT,
        )  # fmt: skip
    (found,) = predicted_windows(lake, use_case, 400)
    lake.close()
    assert len(found.shares) == LARGEST_CLASSES + 1
    assert next(iter(found.shares)) == "class 0"
    assert found.shares["class 0"] == pytest.approx(3 / (2 * many + 1))
    assert sum(found.shares.values()) == pytest.approx(1)
    assert OTHER in found.shares
