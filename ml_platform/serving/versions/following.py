"""What was decided in the lake is followed: swapped in, counted, reported."""

import asyncio
import socket
from collections import deque
from collections.abc import Collection
from datetime import UTC, datetime

from structlog.typing import FilteringBoundLogger

from ml_platform.registry import Registry, ServingEvent, note_serving, repair
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.versions.live import LiveVersions, VersionSwap
from ml_platform.storage import Commit, Lake

MOST_UNREPORTED = 100
"""Swaps that are kept while the lake cannot be written to."""


class Following:
    """Keeps the versions that serve those that were decided on; for one task."""

    def __init__(
        self,
        live: LiveVersions,
        lake: Lake,
        registry: Registry,
        metrics: Metrics,
        log: FilteringBoundLogger,
    ) -> None:
        self._live, self._lake, self._registry = live, lake, registry
        self._metrics, self._log = metrics, log
        self._unreported: deque[VersionSwap] = deque(maxlen=MOST_UNREPORTED)

    async def follow(self, every_seconds: float) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(every_seconds)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look once; where that fails what serves continues to, and the next look comes in time."""
        try:
            swaps = self._live.refresh()
        except Exception as error:
            # Lake and registry can be unavailable in as many ways as there are stores; the task
            # that follows must outlive all of them, or no promotion would ever arrive again.
            self._metrics.refresh_failed()
            self._log.error("refresh_failed", problem=str(error), kind=type(error).__name__)
            return
        self._metrics.followed()
        for swap in swaps:
            self._metrics.swapped(swap)
            log = self._log.error if swap.problem else self._log.info
            log(
                "swap_failed" if swap.problem else "swapped",
                use_case=swap.use_case, version=swap.version, replaced=swap.replaced,
                tried=swap.tried, problem=swap.problem, not_compiled=swap.not_compiled,
            )  # fmt: skip
        self._metrics.versions(self._live)
        self._repair({swap.use_case for swap in swaps if not swap.tried})
        self._unreported += swaps
        self._notify()

    def _repair(self, use_cases: Collection[str]) -> None:
        """Bring what mirrors the history up to it: whoever decided may have died before that."""
        for name in sorted(use_cases):
            try:
                found = repair(self._lake, self._registry, self._live.of(name).use_case)
            except Exception as error:
                # As above.
                self._log.error("mirrors_not_compared", use_case=name, problem=str(error))
                continue
            for difference in found:
                log = self._log.error if difference.problem else self._log.warning
                log("mirror_differed", use_case=name, difference=str(difference))

    def _notify(self) -> None:
        """Note in the lake what failed, for the alerts; what cannot be noted is kept for later."""
        while self._unreported:
            swap = self._unreported[0]
            case = self._live.of(swap.use_case).use_case
            event = ServingEvent(
                happened_at=datetime.now(UTC),
                host=socket.gethostname(),
                version=swap.version,
                kind="failed" if swap.problem else "serving",
                problem=swap.problem or "",
            )
            commit = Commit("serve", case.code_version, f"{case.name}/serving_events")
            try:
                note_serving(self._lake, case, event, commit)
            except Exception as error:
                # As above: the lake may allow reading and refuse to be written to.
                self._log.error("event_not_noted", problem=str(error), version=swap.version)
                return
            self._unreported.popleft()
