"""Dagster's partitions of use cases whose calendars are unusual."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from assets.partitions import looking_ahead, looking_back, partitions_of, trailing
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
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
