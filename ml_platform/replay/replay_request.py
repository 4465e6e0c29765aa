"""The retraining policies that a person asks a replay about."""

from collections.abc import Iterator
from dataclasses import dataclass

from ml_platform.errors import PlatformError
from ml_platform.monitoring import Cause
from ml_platform.replay.policy import CAUSES, scheduled_cutoffs
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest
from ml_platform.spec.windows import Window

NEVER, SCHEDULE, EVERY = "never", "schedule", "every:"
WORDS = (NEVER, SCHEDULE, "every:30d", *CAUSES)


@dataclass(frozen=True)
class Policy:
    """When to retrain: any of the parts of its name, which `+` joins."""

    name: str
    causes: tuple[Cause, ...] = ()
    scheduled: bool = False
    every: Duration | None = None

    @classmethod
    def parse(cls, text: str, use_case: UseCase, asked: str = "--policy") -> "Policy":
        """Read `never`, `schedule`, `every:30d`, `drift+performance` and the like.

        asked: the option or argument that said it, for messages.
        Raises PlatformError where it says nothing, or what this use case has nothing for.
        """
        said = f"{asked} {text}"
        parts = [part.strip() for part in text.split("+")]
        every = [part.removeprefix(EVERY) for part in parts if part.startswith(EVERY)]
        plain = [part for part in parts if not part.startswith(EVERY)]
        for part in plain:
            if part not in WORDS:
                raise PlatformError(f"{said}: no policy '{part}'{suggest(part, WORDS)}")
        if len(every) > 1 or (NEVER in parts and len(parts) > 1):
            raise PlatformError(f"{said}: its parts exclude each other")
        bounded = use_case.monitoring.performance.bounds_by(use_case.model.metric)
        if "performance" in plain and not bounded:
            raise PlatformError(
                f"{said}: {use_case.name} bounds no metric; set monitoring.performance"
            )
        if SCHEDULE in plain and use_case.model.schedule is None:
            raise PlatformError(f"{said}: {use_case.name} has no model.schedule")
        causes = tuple(cause for cause in CAUSES if cause in plain)
        return cls(text, causes, SCHEDULE in plain, _duration(said, every[0]) if every else None)

    def cutoffs(self, use_case: UseCase, window_range: Window) -> Iterator[tuple[Window, str, str]]:
        """Cutoffs that the clock asks for within a range, each with cause and reason."""
        if self.scheduled:
            for window in scheduled_cutoffs(use_case, window_range):
                yield window, SCHEDULE, f"the schedule '{use_case.model.schedule}' fired"
        if self.every is not None:
            calendar = use_case.calendar
            moment = self.every.after(window_range.start, calendar.timezone)
            while moment in window_range:
                yield calendar.window_at(moment), f"{EVERY}{self.every}", f"{self.every} went by"
                moment = self.every.after(moment, calendar.timezone)


def default_policies(use_case: UseCase) -> tuple[str, ...]:
    """What is compared where nobody says: never, and what the use case has the means for."""
    bounded = use_case.monitoring.performance.bounds_by(use_case.model.metric)
    scheduled = (SCHEDULE,) if use_case.model.schedule else ("every:30d",)
    return (NEVER, *scheduled, "drift", *(["performance", "drift+performance"] if bounded else []))


def _duration(said: str, written: str) -> Duration:
    try:
        duration = Duration.parse(written)
    except ValueError as error:
        raise PlatformError(f"{said}: {error}") from None
    if duration.count == 0:
        raise PlatformError(f"{said}: '{written}' should be longer than nothing")
    return duration
