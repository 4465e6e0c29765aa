"""Times that were sent without a zone: found, and answered with how they were read."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

ZONED = re.compile(r":\d\d(?:\.\d*)?\s*(?:[+-]\d|[A-Za-z])")
"""A zone stands after a time of day; without a time of day there is none."""


class Unzoned(NamedTuple):
    """A time as it was sent."""

    row: int
    column: str
    text: str


class ReadTime(NamedTuple):
    """A time as it was read."""

    row: int
    column: str
    time: str
    """ISO 8601 with an offset."""


@dataclass(frozen=True)
class TimesRead:
    """What an answer says of times that were sent without a zone."""

    zone: str
    """Name of the time zone that they were taken to be in."""
    read_as: Sequence[ReadTime]

    def body(self, rows: str = "row") -> dict[str, Any]:
        """A key of an answer; rows: what its rows are called there."""
        read_as = [
            {rows: row, "column": column, "time": time} for row, column, time in self.read_as
        ]
        return {"times_read": {"zone": self.zone, "read_as": read_as}}


def lacks_zone(value: Any) -> bool:
    """Whether a value is a time as text, without a zone.

    >>> lacks_zone("2024-03-01 12:00:00"), lacks_zone("2024-03-01"), lacks_zone(None)
    (True, True, False)
    >>> [lacks_zone(f"2024-03-01T12:00:00{zone}") for zone in ("Z", ".5+02", " Europe/Berlin")]
    [False, False, False]
    """
    return isinstance(value, str) and value[:1].isdigit() and ZONED.search(value) is None
