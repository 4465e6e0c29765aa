"""Times that were sent without a zone: found, and answered with how they were read."""

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

ZONED = re.compile(r":\d\d(?:\.\d*)?\s*(?:[+-]\d|[A-Za-z])")
"""A zone stands after a time of day; without a time of day there is none."""


class Unzoned(NamedTuple):
    """A time as it was sent."""

    row: int
    column: str
    text: str


@dataclass(frozen=True)
class RowTime:
    """A time of a row as it was read: ISO 8601 with an offset."""

    row: int
    column: str
    time: str


@dataclass(frozen=True)
class ItemTime:
    """A time of an item of feedback as it was read: ISO 8601 with an offset."""

    item: int
    column: str
    time: str


@dataclass(frozen=True)
class RowTimes:
    """How times were read that were sent without a zone; not there if all had one."""

    zone: str
    read_as: list[RowTime]


@dataclass(frozen=True)
class ItemTimes:
    """How times were read that were sent without a zone; not there if all had one."""

    zone: str
    read_as: list[ItemTime]


def lacks_zone(value: Any) -> bool:
    """Whether a value is a time as text, without a zone.

    >>> lacks_zone("2024-03-01 12:00:00"), lacks_zone("2024-03-01"), lacks_zone(None)
    (True, True, False)
    >>> [lacks_zone(f"2024-03-01T12:00:00{zone}") for zone in ("Z", ".5+02", " Europe/Berlin")]
    [False, False, False]
    """
    return isinstance(value, str) and value[:1].isdigit() and ZONED.search(value) is None
