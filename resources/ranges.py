"""How a run says which partitions it computes: Dagster's tags."""

from collections.abc import Mapping, Sequence

# Names that Dagster keeps to itself; tests/test_sensors.py fails when they move.
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG as RANGE_END
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_START_TAG as RANGE_START
from dagster._core.storage.tags import PARTITION_NAME_TAG as PARTITION

__all__ = ["PARTITION", "RANGE_END", "RANGE_START", "partitions_in", "range_tags"]


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Tags of one run that computes a stretch of partitions; keys: in order, at least one.

    >>> sorted(range_tags(["2024-01-01", "2024-01-02"]).values())
    ['2024-01-01', '2024-01-02']
    """
    return {RANGE_START: keys[0], RANGE_END: keys[-1]}


def partitions_in(tags: Mapping[str, str]) -> tuple[str, str] | None:
    """First and last partition of a run by its tags; None where it has no partitions.

    >>> partitions_in({PARTITION: "2024-01-01"})
    ('2024-01-01', '2024-01-01')
    """
    one = tags.get(PARTITION)
    first, last = tags.get(RANGE_START, one), tags.get(RANGE_END, one)
    return (first, last) if first and last else None
