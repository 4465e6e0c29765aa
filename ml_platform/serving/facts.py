"""What the lake and the online store say of each use case, read now and then for monitoring."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, NotRequired, TypedDict, cast

from msgspec import Meta
from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from structlog.typing import FilteringBoundLogger

from ml_platform.errors import CalendarChanged, OnlineStoreError
from ml_platform.features import OnlineStore
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.spec.use_case import UseCase
from ml_platform.status import Health, read_health
from ml_platform.status.document import health_document
from ml_platform.storage import Lake

FRESH_SECONDS = 30.0
PATIENCE_SECONDS = 5.0
"""How long an answer waits for the facts where there are none yet."""

UNREAD = (
    "nothing was read of the lake yet: this process is reading, or could not and says why in its "
    "log; ask again in a few seconds"
)


@dataclass(frozen=True)
class Facts:
    """What was read last."""

    health: Mapping[str, Health] = field(default_factory=dict)
    newest: Mapping[str, Mapping[str, datetime]] = field(default_factory=dict)
    """Newest event time by use case and feature view, as published online."""


class Tried(TypedDict):
    """The version that is tried beside the champion."""

    version: int
    mode: str
    share: float | None


class ServingState(TypedDict):
    """How a use case is served."""

    version: Annotated[int | None, Meta(description="The version that answers.")]
    wanted: Annotated[int | None, Meta(description="The version that should.")]
    followed_seconds_ago: Annotated[
        float | None, Meta(description="Since promotions were read last.")
    ]
    failed: Annotated[
        dict[str, str], Meta(description="Why versions that should serve do not, by version.")
    ]
    tried: Tried | None
    features_age_seconds: Annotated[
        dict[str, float], Meta(description="Since the newest event time that is online, by view.")
    ]


class Status(TypedDict):
    """How a use case is served, and what `ml-platform status --json` knows of it."""

    use_case: str
    at: Annotated[
        str | None,
        Meta(description="When the facts were read; null where none were yet, which `note` says."),
    ]
    note: NotRequired[str]
    facts_age_seconds: float | None
    serving: ServingState


class FactReader(Collector):
    """Reads the facts at most each half minute, and never in the way of a request."""

    def __init__(
        self, lake: Lake, store: OnlineStore, live: LiveVersions, log: FilteringBoundLogger
    ) -> None:
        self._lake, self._store, self._live, self._log = lake, store, live, log
        self._facts = Facts()
        self._read_at: float | None = None
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Begin to read where the facts are old; wait only where there are none yet."""
        old = self._read_at is None or time.monotonic() > self._read_at + FRESH_SECONDS
        if old and self._reading is None:
            self._reading = asyncio.create_task(self._read())
        if self._read_at is None and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=PATIENCE_SECONDS)

    def status(self, name: str) -> Status:
        """A use case as plain data: how it is served, and everything that `status` knows.

        Raises NotServed for a use case that there is not.
        """
        live = self._live.of(name)
        health = self._facts.health.get(name)
        now, followed = datetime.now(UTC), self._live.followed_seconds_ago
        served: ServingState = {
            "version": live.champion.version if live.champion else None,
            "wanted": live.wanted,
            "followed_seconds_ago": None if followed is None else round(followed, 3),
            "failed": {str(v): failure.problem for v, failure in live.failed.items()},
            "tried": {
                "version": live.candidate.version,
                "mode": live.rollout.mode,
                "share": live.rollout.share,
            }
            if live.rollout and live.candidate
            else None,
            "features_age_seconds": {
                view: round((now - newest).total_seconds(), 3)
                for view, newest in self._facts.newest.get(name, {}).items()
            },
        }
        known = (
            health_document(health) if health else {"use_case": name, "at": None, "note": UNREAD}
        )
        more = {"facts_age_seconds": self._age_seconds, "serving": served}
        return cast("Status", {**known, **more})

    def collect(self) -> Iterator[Metric]:
        """The facts as gauges; what is not known has no sample."""
        health = self._facts.health.values()
        yield _gauge(
            "ml_platform_drift_share", "Share of columns that drifted, newest judged partition.",
            ["use_case"], (([h.use_case.name], h.drift.value) for h in health if h.drift),
        )  # fmt: skip
        yield _gauge(
            "ml_platform_drift_limit", "Share of drifted columns beyond which it is too much.",
            ["use_case"],
            (([h.use_case.name], h.use_case.monitoring.drift.share) for h in health),
        )  # fmt: skip
        yield _gauge(
            "ml_platform_performance", "Primary metric of the newest judged partition.",
            ["use_case", "metric"],
            (([h.use_case.name, h.use_case.model.metric], h.performance.value)
             for h in health if h.performance),
        )  # fmt: skip
        yield _gauge(
            "ml_platform_performance_passed", "Whether the primary metric is within its bounds.",
            ["use_case"],
            (([h.use_case.name], float(h.performance.passed)) for h in health if h.performance),
        )  # fmt: skip
        yield _gauge(
            "ml_platform_quarantine_share", "Largest share of a partition that broke its contract.",
            ["use_case"],
            (([h.use_case.name], max((q.share for q in h.quarantine), default=0.0))
             for h in health),
        )  # fmt: skip
        yield _gauge(
            "ml_platform_alerts_open", "Conditions that hold now.", ["use_case", "severity"],
            (([h.use_case.name, severity],
              float(sum(a.condition.severity == severity for a in h.alerts)))
             for h in health for severity in ("info", "warning", "critical")),
        )  # fmt: skip
        now = datetime.now(UTC)
        yield _gauge(
            "ml_platform_features_age_seconds", "Since the newest event time that is online.",
            ["use_case", "view"],
            (([name, view], (now - newest).total_seconds())
             for name, views in self._facts.newest.items() for view, newest in views.items()),
        )  # fmt: skip
        age = self._age_seconds
        if age is not None:
            yield _gauge(
                "ml_platform_facts_age_seconds", "Since these facts were read.", [], [([], age)]
            )

    @property
    def _age_seconds(self) -> float | None:
        return None if self._read_at is None else round(time.monotonic() - self._read_at, 3)

    async def _read(self) -> None:
        try:
            self._facts = await asyncio.to_thread(self._read_all)
            self._read_at = time.monotonic()
        except Exception as error:
            # The lake can be unavailable in any way; what was known stays, and its age is a metric.
            self._log.error("facts_not_read", problem=str(error), kind=type(error).__name__)
        finally:
            self._reading = None

    def _read_all(self) -> Facts:
        now = datetime.now(UTC)
        cases = [self._live.of(name).use_case for name in self._live.names]
        return Facts(
            {case.name: health for case in cases if (health := self._health(case, now))},
            {case.name: self._newest(case) for case in cases},
        )

    def _health(self, case: UseCase, now: datetime) -> Health | None:
        try:
            return read_health(self._lake, case, now)
        except CalendarChanged as error:
            # It is a matter of this use case alone.
            self._log.error("facts_not_read", use_case=case.name, problem=str(error))
            return None

    def _newest(self, case: UseCase) -> dict[str, datetime]:
        found = {}
        for view in case.model_views:
            try:
                newest = self._store.newest(case.name, view)
            except OnlineStoreError:
                # Nothing was ever published, or the store is unavailable: there is no age to show.
                continue
            if newest is not None:
                found[view] = datetime.fromtimestamp(newest / 1_000_000, UTC)
        return found


def _gauge(
    name: str, help: str, labels: list[str], samples: Iterable[tuple[list[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
