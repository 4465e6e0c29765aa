"""Feature SQL that fails when it runs, though it binds."""

import re
from pathlib import Path

import pytest

from ml_platform.errors import QueryFailed
from ml_platform.features import compute_features, compute_labels
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, days, land, settings, trips, write_folder


def test_sql_that_fails_as_it_runs_is_told_with_its_file_and_line(tmp_path: Path) -> None:
    use_case = write_folder(tmp_path, "binary")
    lake = Lake(settings(tmp_path))
    land(lake, use_case, trips(1, 2), days(1, 2))
    view, labels = use_case.folder / "features" / "pace.sql", use_case.folder / "labels.sql"
    view.write_text(
        "-- How fast\n\nSELECT trip, started_at AS event_time,\n"
        "    CAST('slow' || trip AS DOUBLE) AS pace\nFROM trips\n"
    )
    labels.write_text(labels.read_text().replace("delay > 15", "CAST(city AS INTEGER) = 1"))
    use_case = load_use_case(use_case.folder)
    said = rf"^{re.escape(str(view))}:4: Could not convert string 'slow\d+' to DOUBLE"
    with pytest.raises(QueryFailed, match=said) as failure:
        compute_features(lake, use_case, "pace", days(1, 2), COMMIT)
    assert "\n" not in str(failure.value)
    with pytest.raises(QueryFailed, match=rf"^{re.escape(str(labels))}:1: Could not convert"):
        compute_labels(lake, use_case, days(1, 2), COMMIT)
    lake.close()
