"""Alerts of one cause together: a rule that is broken in very many partitions is one matter."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.alerts.condition import Condition, counted
from ml_platform.status.health import OpenAlert


@dataclass(frozen=True)
class AlertGroup:
    """Alerts that hold for one cause, in order of time; most stand alone."""

    alerts: tuple[OpenAlert, ...]

    @property
    def newest(self) -> OpenAlert:
        return self.alerts[-1]

    @property
    def since(self) -> datetime:
        """When the first of them began."""
        return self.alerts[0].condition.since

    @property
    def notified(self) -> tuple[datetime, ...]:
        """When people were notified of those that a channel has taken, in order."""
        return tuple(sorted(a.notified_at for a in self.alerts if a.notified_at is not None))

    @property
    def partitions(self) -> tuple[str, str]:
        """Keys of the first and the last partition; empty where the cause is of none."""
        return self.alerts[0].condition.partition, self.newest.condition.partition

    @property
    def title(self) -> str:
        """What is the matter, in one line."""
        condition = self.newest.condition
        if len(self.alerts) == 1:
            return condition.title
        first, last = self.partitions
        many = counted(len(self.alerts), "partition")
        return f"{condition.cause} in {many} of {condition.use_case}, {first} to {last}"


def grouped(alerts: Sequence[OpenAlert]) -> tuple[AlertGroup, ...]:
    """Groups in the order of their first alerts; what names no cause stands alone."""
    found: dict[str, list[OpenAlert]] = {}
    for alert in alerts:
        found.setdefault(_cause(alert.condition), []).append(alert)
    return tuple(
        AlertGroup(tuple(sorted(members, key=lambda a: a.condition.since)))
        for members in found.values()
    )


def _cause(condition: Condition) -> str:
    return f"{condition.kind}: {condition.cause}" if condition.cause else condition.key
