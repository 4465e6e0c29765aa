"""A model fitted on a part of its rows: which part, and that it stands with the version."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient

from ml_platform.errors import TrainingFailed
from ml_platform.registry import Registry
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.training import train
from ml_platform.training.sample import Sample
from ml_platform.training.training_set import collect
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

NAMES = ("trip", "at")
ROWS = pd.DataFrame(
    {"trip": np.arange(2000), "at": pd.date_range("2024-03-01", periods=2000, freq="h", tz="UTC")}
)


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Lake, Registry, UseCase]]:
    root = tmp_path_factory.mktemp("sample")
    case = write_folder(root, "binary")
    lake, registry = Lake(settings(root)), Registry(settings(root))
    land(lake, case, trips(1, 25), days(1, 25))
    yield lake, registry, case
    lake.close()


def test_a_share_takes_about_so_many_rows_and_keeps_their_order() -> None:
    taken = Sample(share=0.3).take(ROWS, NAMES)
    assert 500 < len(taken) < 700
    assert taken["trip"].is_monotonic_increasing
    assert taken.index.equals(pd.RangeIndex(len(taken)))


def test_a_row_is_taken_or_left_whatever_other_rows_there_are() -> None:
    whole = set(Sample(share=0.3).take(ROWS, NAMES)["trip"])
    half = Sample(share=0.3).take(ROWS[::2].reset_index(drop=True), NAMES)
    assert set(half["trip"]) == {trip for trip in whole if trip % 2 == 0}


def test_a_larger_sample_has_all_rows_of_a_smaller_one() -> None:
    for small, large in (
        (Sample(share=0.2), Sample(share=0.5)),
        (Sample(rows=100), Sample(rows=101)),
        (Sample(share=0.2, rows=100), Sample(share=0.2)),
    ):
        taken = [set(each.take(ROWS, NAMES)["trip"]) for each in (small, large)]
        assert taken[0] < taken[1]


def test_no_more_rows_are_taken_than_asked_for() -> None:
    assert len(Sample(rows=100).take(ROWS, NAMES)) == 100
    assert len(Sample(rows=5000).take(ROWS, NAMES)) == 2000
    assert Sample(share=1.0).take(ROWS, NAMES) is ROWS


@pytest.mark.parametrize("odd", [{"share": 0}, {"share": 1.1}, {"share": -0.1}, {"rows": 0}])
def test_a_sample_of_nothing_is_none(odd: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a sample has a share"):
        Sample(**odd)


def test_the_holdout_stays_whole(trained: tuple[Lake, Registry, UseCase]) -> None:
    lake, _, case = trained
    with lake.cursor(case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        whole = collect(cursor, lake, case, at(24), snapshot)
        part = collect(cursor, lake, case, at(24), snapshot, sample=Sample(share=0.5))
    assert 0.4 < len(part.fitted) / len(whole.fitted) < 0.6
    pd.testing.assert_frame_equal(part.holdout, whole.holdout)
    assert part.digest != whole.digest


def test_window_and_sample_stand_with_the_version(
    trained: tuple[Lake, Registry, UseCase],
) -> None:
    lake, registry, case = trained

    def made(window: str | None = None, sample: Sample | None = None) -> int:
        return train(
            lake, registry, case, at(24), COMMIT, tags={},
            window=Duration.parse(window) if window else None, sample=sample or Sample(),
        ).version  # fmt: skip

    whole, part = made(), made("15d", Sample(share=0.5, rows=300))
    assert part != whole
    # The same again is the same version.
    assert made("15d", Sample(share=0.5, rows=300)) == part
    client = MlflowClient(registry.settings.tracking_uri)
    runs = {version: registry.load(case, version).run_id for version in (whole, part)}
    asked = {
        version: {n: v for n, v in client.get_run(run).data.params.items() if "training" in n}
        for version, run in runs.items()
    }
    for version in (whole, part):
        # `ml-platform trace` shows the tags.
        assert asked[version].items() <= registry.tags(case, version).items()
    assert asked == {
        whole: {"training.window": "20d", "training.sample": "all rows"},
        part: {
            "training.window": "15d",
            "training.sample": "0.5 of the rows, 300 rows at most",
        },
    }


def test_too_small_a_sample_is_said_to_be_one(trained: tuple[Lake, Registry, UseCase]) -> None:
    lake, registry, case = trained
    with pytest.raises(TrainingFailed, match=r"20 labelled rows to fit on \(20 rows at most\)"):
        train(lake, registry, case, at(24), COMMIT, tags={}, sample=Sample(rows=20))
