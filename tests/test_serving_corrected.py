"""What was served equals the join as known, also where source rows were corrected since.

Trips of 30 days land and those of the 29th are predicted by key; at the next midnight the distance
of every third trip is corrected, and those of the 30th are predicted.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import Skew, compare_online
from ml_platform.registry import Registry
from ml_platform.sources import ingest
from ml_platform.storage import Lake
from tests.served import LOGGED, Deployment, declare, published
from tests.trips_use_case import COMMIT, at, days, settings, trips, write_folder

pytestmark = pytest.mark.slow
ALL = days(1, 30)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("corrected")
    use_case, chosen = write_folder(root, "binary"), settings(root)
    made = declare(Deployment(root, chosen, Lake(chosen), Registry(chosen), use_case), LOGGED)
    rows = trips(1, 30)
    wrong = rows["trip"] % 3 == 0
    corrected = rows.assign(distance=rows["distance"].where(~wrong, rows["distance"] + 7.25))
    land(made, rows, 1)
    made.promote(20)
    serve(made, rows, 29)
    land(made, corrected[wrong], 30)
    serve(made, corrected, 30)
    yield made
    made.lake.close()


def land(made: Deployment, rows: pd.DataFrame, day: int) -> None:
    """Land a file at a midnight, and compute and publish what is made of it."""
    file = Path(made.settings.landing_uri) / "trips" / f"{day}.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(file, index=False)
    os.utime(file, (at(day).timestamp(),) * 2)
    ingest(made.lake, made.use_case, "trips", ALL, COMMIT)
    compute_features(made.lake, made.use_case, "pace", ALL, COMMIT)
    compute_labels(made.lake, made.use_case, ALL, COMMIT)
    published(made)


def serve(made: Deployment, rows: pd.DataFrame, day: int) -> None:
    """Predict the trips of a day, as callers know them."""
    chosen = rows[rows["started_at"].dt.day == day].drop(columns="delay")
    asked = chosen.assign(started_at=chosen["started_at"].map(lambda at: at.isoformat()))
    sent = asked.astype(object).where(asked.notna(), None).to_dict("records")
    with made.client() as client:
        answer = client.post("/predict/trips", json={"rows": sent})
    assert answer.status_code == 200, answer.json()
    ingest(made.lake, made.use_case, "requests", days(day, day), COMMIT)


def test_what_was_served_before_a_correction_equals_the_join_to_the_bit(
    deployment: Deployment,
) -> None:
    assert compare_online(deployment.lake, deployment.use_case, days(29, 29)) == Skew(40, {})


def test_what_was_served_after_a_correction_equals_the_join_to_the_bit(
    deployment: Deployment,
) -> None:
    assert compare_online(deployment.lake, deployment.use_case, days(30, 30)) == Skew(40, {})


def test_revised_values_are_not_what_was_served(deployment: Deployment) -> None:
    revised = deployment.use_case.model_copy(update={"values": "as_revised"})
    found = compare_online(deployment.lake, revised, days(29, 29))
    assert found.differing.keys() == {"distance", "pace__pace"}
    assert compare_online(deployment.lake, revised, days(30, 30)) == Skew(40, {})
