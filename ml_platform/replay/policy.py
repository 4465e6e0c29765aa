"""When a challenger is due: by the clock, or because what is watched keeps failing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from cronsim import CronSim

from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window


@dataclass(frozen=True)
class Trigger:
    """Why a challenger is due, and the cutoff it should be trained at."""

    cutoff: Window
    """The window at whose start the training set ends."""
    reason: str


def scheduled_cutoffs(use_case: UseCase, stretch: Window) -> Iterator[Window]:
    """The windows of a stretch at whose start the schedule asks for a new model.

    A schedule fires within a window; the cutoff is that window's start.
    """
    if use_case.model.schedule is None:
        return
    zone = use_case.calendar.timezone
    ticks = CronSim(use_case.model.schedule, stretch.start.astimezone(zone) - timedelta(seconds=1))
    previous = None
    for tick in ticks:
        if tick.astimezone(UTC) >= stretch.end.astimezone(UTC):
            return
        window = use_case.calendar.window_at(tick)
        if window != previous and window.start in stretch:
            yield window
        previous = window


def retraining_due(
    use_case: UseCase,
    cause: Literal["drift", "performance"],
    verdicts: Sequence[tuple[Window, bool]],
    last_cutoff: datetime | None,
) -> Trigger | None:
    """Whether failing windows call for a challenger, and at which cutoff.

    verdicts: (window, passed) in order of time; windows that could not be judged are left out.
    Due when n of the last m judged windows failed, `retrain.sustained`, the newest of them too,
    and the last cutoff is at least `retrain.cooldown` before the one this would train at.
    """
    if cause not in use_case.retrain.on or not verdicts:
        return None
    needed, of = use_case.retrain.n_of_m
    recent = verdicts[-of:]
    failed = [window for window, passed in recent if not passed]
    newest, newest_passed = recent[-1]
    if newest_passed or len(failed) < needed:
        return None
    cutoff = use_case.calendar.window_at(newest.end)
    zone = use_case.calendar.timezone
    if last_cutoff is not None and last_cutoff.astimezone(UTC) > use_case.retrain.cooldown.before(
        cutoff.start, zone
    ).astimezone(UTC):
        return None
    names = ", ".join(use_case.calendar.key(window) for window in failed)
    return Trigger(cutoff, f"{cause} failed in {len(failed)} of {len(recent)} partitions: {names}")
