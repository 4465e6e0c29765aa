"""How a run is told which partitions it computes: Dagster's tags of a range."""

from collections.abc import Sequence

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Tags of one run that computes a stretch of partitions; keys: in order, at least one.

    >>> sorted(range_tags(["2024-01-01", "2024-01-02"]).values())
    ['2024-01-01', '2024-01-02']
    """
    return {RANGE_START: keys[0], RANGE_END: keys[-1]}
