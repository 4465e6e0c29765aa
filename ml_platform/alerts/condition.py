"""What a person should know: conditions that last, and events that happen once."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal
from urllib.parse import quote
from zoneinfo import ZoneInfo

from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

Kind = Literal[
    "drift", "performance", "failed_run", "quarantine", "freshness",
    "refused", "approval", "promotion", "rollback", "serving", "rollout",
]  # fmt: skip
Severity = Literal["info", "warning", "critical"]

SEVERITIES: dict[Kind, Severity] = {
    "drift": "warning",
    "performance": "critical",
    "failed_run": "critical",
    "quarantine": "warning",
    "freshness": "warning",
    "refused": "info",
    "approval": "warning",
    "promotion": "info",
    "rollback": "warning",
    "serving": "critical",
    "rollout": "warning",
}
EVENTS = frozenset({"refused", "promotion", "rollback", "rollout"})
"""Kinds that are reported once. The others last: their beginning and their end are reported."""


@dataclass(frozen=True)
class Condition:
    """One thing to report about a use case, in plain words."""

    use_case: str
    kind: Kind
    title: str
    what: str
    """What is the matter and how bad it is: each value beside its threshold."""
    since: datetime
    """When it began, or happened."""
    since_text: str
    """The same in words: which partition, how many since, when by the clock."""
    done: str
    """What was done about it, and what a person can do."""
    link: str
    """Where to look; some have a second line with another place."""
    subject: str = ""
    """Distinguishes conditions of a kind: a table, a partition, a version."""
    cause: str = ""
    """What it has in common with conditions of other partitions; empty where it stands alone."""
    partition: str = ""
    """Key of the partition that it is about, where it has a cause."""

    @property
    def key(self) -> str:
        """What it is recognised by for as long as it lasts."""
        return f"{self.kind}/{self.subject}" if self.subject else self.kind

    @property
    def severity(self) -> Severity:
        return SEVERITIES[self.kind]

    @property
    def lasts(self) -> bool:
        return self.kind not in EVENTS

    @property
    def body(self) -> str:
        """A few short lines, as good in a chat as in a mail."""
        when = "Since" if self.lasts else "When"
        return f"{self.what}\n{when}: {self.since_text}\nDone: {self.done}"


@dataclass(frozen=True)
class Findings:
    """Everything there is to report about a use case now."""

    conditions: tuple[Condition, ...]
    """Those that last, and events; of the latter also such as have been reported before."""
    notes: dict[str, str] = field(default_factory=dict)
    """By key, what can be said of a condition that does not hold; goes with its all-clear."""
    judged: dict[str, datetime] = field(default_factory=dict)
    """By key, start of the newest partition that was judged: what began later is not over."""


def clock(moment: datetime, zone: ZoneInfo) -> str:
    """A moment by the clock of a zone, which is named."""
    return f"{moment.astimezone(zone):%a %d %b %Y %H:%M} {zone}"


def counted(count: int, noun: str) -> str:
    """`1 partition`, `2 partitions`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def asset_url(
    settings: Settings, use_case: UseCase, table: str, window: Window | None = None
) -> str:
    """Where Dagster shows the partitions of a table, or one of them."""
    page = f"{settings.dagster_url.rstrip('/')}/assets/{use_case.name}/{table}?view=partitions"
    if window is None:
        return page
    return f"{page}&partition={quote(use_case.calendar.key(window), safe='')}"


def run_url(settings: Settings, run_id: str) -> str:
    """Where Dagster shows a run."""
    return f"{settings.dagster_url.rstrip('/')}/runs/{run_id}"
