"""What the first page shows of each use case, read in the background and kept.

Looking at everything that is known of a use case takes seconds of CPU, so no request waits for it:
a thread reads one use case after the other, again when the lake has changed or a minute has
passed, and rests for as long as it worked.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_platform.alerts import FailedRun
from ml_platform.errors import PlatformError
from ml_platform.failures import failure_of
from ml_platform.monitoring.series import (
    DriftWindow,
    PerformanceWindow,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.status import Dagster, Health, ask_dagster, read_health
from ml_platform.web.site import Site

OUTDATED_SECONDS = 60.0
"""After which everything is read again, whether the lake has changed or not: time passes, too."""
PAUSE_SECONDS = 2.0
"""Between two looks at whether there is something to read."""
SHOWN_WINDOWS = 30
"""Of performance and drift."""


@dataclass(frozen=True)
class Observation:
    """A use case as it was at a moment."""

    at: datetime
    health: Health | None
    """None where it could not be read; `problem` says why."""
    problem: str = ""
    performance: Sequence[PerformanceWindow] = ()
    drift: Sequence[DriftWindow] = ()
    importances: Mapping[str, float] = field(default_factory=dict)
    """Of the champion's columns; empty where there is none, or it cannot be loaded."""


class Observer:
    """Reads use cases in a thread of its own; what it has read last is there at once."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._found: dict[str, Observation] = {}
        self._snapshots: dict[str, tuple[int, float]] = {}
        """By use case, the snapshot that was read and when."""
        self._dagster: Dagster | None = None
        self._problem = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End after what is being read now."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def dagster(self) -> Dagster | None:
        """What Dagster answered last; None before the first time."""
        return self._dagster

    @property
    def problem(self) -> str:
        """Why nothing could be read at the last try; empty where it could."""
        return self._problem

    def of(self, case: UseCase) -> Observation | None:
        """What was read of a use case last; None where it has not been read yet."""
        return self._found.get(case.name)

    def observe(self) -> bool:
        """Read every use case that is out of date; whether there was one."""
        due = self._due()
        if not due:
            return False
        self._dagster = ask_dagster(self._site.settings, [case for case, _ in due])
        for case, snapshot in due:
            if self._ended.is_set():
                break
            began = time.monotonic()
            self._found[case.name] = self._read(case, self._dagster.failed.get(case.name, ()))
            self._snapshots[case.name] = snapshot, time.monotonic()
            self._ended.wait(time.monotonic() - began)
        return True

    def _due(self) -> list[tuple[UseCase, int]]:
        with self._site.lake.cursor() as cursor:
            snapshot = self._site.lake.snapshot(cursor)
        now = time.monotonic()
        due: list[tuple[UseCase, int]] = []
        for case in self._site.loaded.use_cases.values():
            seen, at = self._snapshots.get(case.name, (-1, 0.0))
            if seen != snapshot or now - at > OUTDATED_SECONDS:
                due.append((case, snapshot))
        return due

    def _read(self, case: UseCase, failed: Sequence[FailedRun]) -> Observation:
        now = datetime.now(UTC)
        lake = self._site.lake
        try:
            health = read_health(lake, case, now, failed)
            history = self._site.histories.of(case)
            return Observation(
                now,
                health,
                "",
                history.performance[-SHOWN_WINDOWS:],
                history.drift[-SHOWN_WINDOWS:],
                self._importances(case, health),
            )
        except PlatformError as error:
            return Observation(now, None, str(error))

    def _importances(self, case: UseCase, health: Health) -> Mapping[str, float]:
        if health.champion is None:
            return {}
        try:
            return self._site.registry.load(case, health.champion.version).importances
        except PlatformError:
            # Its files are gone, say: its card says so.
            return {}

    def _run(self) -> None:
        while not self._ended.is_set():
            try:
                self.observe()
                self._problem = ""
            # Whatever it is: a thread that ends in silence would leave the page as it is for good.
            except Exception as error:
                self._problem = str(failure_of(error, self._site.settings))
            self._ended.wait(PAUSE_SECONDS)
