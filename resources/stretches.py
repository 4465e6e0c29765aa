"""The tag of a run that computes another stretch of each table.

What depends on a day is some days of one table and other days of the next. One run takes them all:
its partition range is the hull of the stretches, and the tag says which of them each table is due.
"""

import json
from collections.abc import Mapping

STRETCHES = "ml_platform/stretches"
UPKEEP = "ml_platform/upkeep"
"""Tag of a run that a schedule asked for, since it found partitions due."""


def stretches_tag(stretches: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """The tag of a run; stretches: first and last partition of each table."""
    return {STRETCHES: json.dumps(stretches)}


def stretch_in(tags: Mapping[str, str], table: str) -> tuple[str, str] | None:
    """First and last partition that a run is to compute of a table; None where it has no tag."""
    if STRETCHES not in tags:
        return None
    first, last = json.loads(tags[STRETCHES])[table]
    return first, last


def is_unattended(tags: Mapping[str, str]) -> bool:
    """Whether nobody waits for a run: something upstream changed, or a schedule found it due."""
    return STRETCHES in tags or UPKEEP in tags
