"""Dagster's partitions of use cases whose calendars are unusual."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.assets.partitions import (
    looking_ahead,
    looking_back,
    partitions_of,
    trailing,
)
from ml_platform_dagster.assets.training import build_training
from tests.trips_use_case import write_folder

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def weekly(root: Path, day: str) -> UseCase:
    use_case = write_folder(root, "binary", name=day)
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(
        spec.read_text().replace("cadence: daily", f"cadence: weekly, week_starts: {day}")
    )
    return load_use_case(use_case.folder)


@pytest.mark.parametrize(
    ("day", "first", "third"),
    [("sunday", "2024-03-03", "2024-03-17"), ("monday", "2024-03-04", "2024-03-18")],
)
def test_weeks_begin_where_the_use_case_says(
    tmp_path: Path, day: str, first: str, third: str
) -> None:
    use_case = weekly(tmp_path, day)
    partitions = partitions_of(use_case)
    keys = partitions.get_partition_keys(NOW)
    assert (keys[0], keys[2]) == (first, third)
    week = Duration(1, "w")
    chosen = partitions.subset_with_partition_keys([third])

    def mapped(mapping: dg.TimeWindowPartitionMapping) -> list[str]:
        found = mapping.get_upstream_mapped_partitions_result_for_partitions(
            chosen, partitions, partitions, current_time=NOW
        )
        return sorted(found.partitions_subset.get_partition_keys())

    assert mapped(looking_back(use_case, week)) == keys[1:3]
    assert mapped(looking_ahead(use_case, week)) == keys[2:4]
    assert mapped(trailing(use_case, week)) == keys[2:3]
    assert mapped(looking_back(use_case, Duration(8, "d"))) == keys[:3]


@pytest.mark.parametrize(
    ("window", "retrained", "days"), [("30d", "1mo", 31), ("1mo", "30d", 31), ("5w", "1mo", 35)]
)
def test_a_model_depends_on_the_longer_of_its_windows_by_the_calendar(
    tmp_path: Path, window: str, retrained: str, days: int
) -> None:
    folder = write_folder(tmp_path, "binary").folder
    spec = (folder / "use_case.yaml").read_text().replace("window: 20d", f"window: {window}")
    (folder / "use_case.yaml").write_text(f"{spec}retrain: {{window: {retrained}}}\n")
    model, _ = build_training(load_use_case(folder), Settings(data=tmp_path))
    mapping = model.get_partition_mapping(dg.AssetKey(["trips", "labels"]))
    assert mapping == dg.TimeWindowPartitionMapping(
        start_offset=-days, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
