"""When a challenger is due: by the clock, or because what is watched keeps failing.

Pure: the live sensor asks with what the lake and the registry say now, a replay with what they
would have said then.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from ml_platform.monitoring import Cause
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.windows import Window, utc

CAUSES: tuple[Cause, ...] = ("drift", "performance")


@dataclass(frozen=True)
class Seen:
    """What is known of a use case at one moment."""

    newest: Window | None
    """The newest window that has predictions."""
    last_cutoff: datetime | None
    """The latest cutoff that a version was trained at, whatever became of it."""
    verdicts: Mapping[Cause, Sequence[tuple[Window, bool]]] = field(default_factory=dict)
    """(window, passed) in order of time; windows that could not be judged are left out."""
    answered: datetime | None = None
    """The latest cutoff of a version that the gate could judge; what failed before is answered.

    None where that is `last_cutoff`.
    """


@dataclass(frozen=True)
class Trigger:
    """Why a challenger is due, and the cutoff it should be trained at."""

    cutoff: Window
    """The window at whose start the training set ends."""
    causes: tuple[Cause, ...]
    failed: tuple[str, ...]
    """Keys of the windows whose failure it answers, in order."""
    reason: str

    @property
    def cause(self) -> str:
        """The causes in one word."""
        return "+".join(self.causes)

    @property
    def key(self) -> str:
        """The same for the same failing windows, whichever cause and whenever it is asked."""
        return digest(self.failed)


def scheduled_cutoffs(use_case: UseCase, window_range: Window) -> Iterator[Window]:
    """The windows of a range at whose start the schedule asks for a new model.

    A schedule fires within a window; the cutoff is that window's start.
    """
    if use_case.model.schedule is None:
        return
    zone = use_case.calendar.timezone
    ticks = CronSim(
        use_case.model.schedule, window_range.start.astimezone(zone) - timedelta(seconds=1)
    )
    previous = None
    for tick in ticks:
        if tick.astimezone(UTC) >= window_range.end.astimezone(UTC):
            return
        window = use_case.calendar.window_at(tick)
        if window != previous and window.start in window_range:
            yield window
        previous = window


def retraining_due(use_case: UseCase, seen: Seen) -> Trigger | None:
    """Whether failing windows call for a challenger, and at which cutoff.

    A cause of `retrain.on` calls for one when n of its last m judged windows failed,
    `retrain.sustained`, the newest of them too. Only windows from the last cutoff on count: what
    failed before it has been answered by the version trained there, also if that was refused as
    worse; one that could not be judged answers nothing. The cutoff is the end of the newest window
    with predictions, and at least `retrain.cooldown` after the last one.
    """
    if seen.newest is None or is_resting(use_case, seen.newest, seen.last_cutoff):
        return None
    calendar = use_case.calendar
    found: dict[Cause, list[str]] = {}
    reasons = []
    for cause in CAUSES:
        recent = judged_now(use_case, seen, cause)
        failed = [calendar.key(window) for window, passed in recent if not passed]
        if failed and not recent[-1][1] and len(failed) >= use_case.retrain.n_of_m[0]:
            found[cause] = failed
            reasons.append(
                f"{cause} failed in {len(failed)} of {len(recent)} partitions: {', '.join(failed)}"
            )
    if not found:
        return None
    windows = sorted({key for failed in found.values() for key in failed})
    cutoff = calendar.window_at(seen.newest.end)
    return Trigger(cutoff, tuple(found), tuple(windows), "; ".join(reasons))


def is_resting(use_case: UseCase, newest: Window, last_cutoff: datetime | None) -> bool:
    """Whether no cutoff may follow yet, whatever failed, or none any more.

    The next cutoff would be the end of the newest window with predictions.
    """
    cutoff, closes = utc(newest.end), use_case.partitions.closes_at
    if closes is not None and cutoff >= utc(closes):
        return True
    if last_cutoff is None:
        return False
    rested = use_case.retrain.cooldown.after(last_cutoff, use_case.calendar.timezone)
    return cutoff < utc(rested) or cutoff <= utc(last_cutoff)


def judged_now(use_case: UseCase, seen: Seen, cause: Cause) -> Sequence[tuple[Window, bool]]:
    """(window, passed) of the judged windows by which a cause calls for a challenger, in order.

    None where `retrain.on` does not name the cause.
    """
    if cause not in use_case.retrain.on:
        return ()
    verdicts = seen.verdicts.get(cause, ())
    until = seen.answered or seen.last_cutoff
    if until is not None:
        answered = utc(until)
        verdicts = [
            (window, passed) for window, passed in verdicts if utc(window.start) >= answered
        ]
    return verdicts[-use_case.retrain.n_of_m[1] :]
