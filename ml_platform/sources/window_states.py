"""What a table, or a function, holds of each window, and which windows are behind it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class WindowState:
    """What a table holds of one window."""

    mark: int
    """Highest high-water value, in microseconds since 1970 where it is a time; 0 without rows."""
    content: str
    """Digest of keys and high-water values, and of the contract."""

    @property
    def fingerprint(self) -> str:
        return f"{self.mark}-{self.content}"


def windows_behind(
    states: Mapping[datetime, WindowState],
    ingested: Mapping[datetime, tuple[str, int]],
    looked_everywhere: bool,
) -> dict[datetime, list[str]]:
    """States that windows have yet to ingest, and the snapshots they come after, by start.

    Where all windows were looked at, only higher marks count: rows that a table has dropped to
    stay small are no news.
    """
    behind: dict[datetime, list[str]] = {}
    for start, state in states.items():
        held, at = ingested.get(start, ("0-", 0))
        mark, _, content = held.partition("-")
        same_contract = content.split("-")[-1] == state.content.split("-")[-1]
        if looked_everywhere and same_contract and state.mark <= int(mark):
            continue
        if held != state.fingerprint and (content or state.mark):
            behind[start] = [f"{state.fingerprint} {at}"]
    return behind
