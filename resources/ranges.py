"""How a run says which partitions it computes: tags of Dagster's, and one of the platform's.

What depends on a day is some days of one table and other days of the next. One run takes them all:
its partition range is the range that covers them, and a tag names the range of each table.
"""

import json
from collections.abc import Mapping, Sequence

from ml_platform_dagster.resources.private import PARTITION, RANGE_END, RANGE_START

RANGES = "ml_platform/ranges"
UPKEEP = "ml_platform/upkeep"
"""Tag of a run that a schedule asked for, since it found partitions due."""


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """Tags of one run that computes a range of partitions; keys: in order, at least one.

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


def ranges_tag(window_ranges: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The tag of a run; window_ranges: first and last partition of each table."""
    return {RANGES: json.dumps(window_ranges)}


def range_in(tags: Mapping[str, str], table: str) -> tuple[str, str] | None:
    """First and last partition that a run is to compute of a table; None where it has no tag."""
    if RANGES not in tags:
        return None
    first, last = json.loads(tags[RANGES])[table]
    return first, last


def is_unattended(tags: Mapping[str, str]) -> bool:
    """Whether nobody waits for a run: something upstream changed, or a schedule found it due."""
    return RANGES in tags or UPKEEP in tags
