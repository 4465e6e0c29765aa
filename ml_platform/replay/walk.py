"""Walk through a range of history as if live under one policy."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from ml_platform.errors import TrainingFailed
from ml_platform.registry import Promotion, champion_at, champion_if_any
from ml_platform.replay.policy import Seen, is_resting, retraining_due
from ml_platform.replay.replay_request import Policy
from ml_platform.replay.versions import Versions
from ml_platform.replay.watched import Watched
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc

FIRST = "first model"


@dataclass(frozen=True)
class Decision:
    """One training of a walk and what became of it."""

    cutoff: Window
    """The window at whose start the training set ends, and from which on a promotion serves."""
    cause: str
    reason: str
    """Why it was trained."""
    version: int | None
    """Number within the replay; None where training failed."""
    decision: Literal["promoted", "refused", "failed"]
    why: str
    """What the gate said, or why training failed."""
    figures: Mapping[str, float]


@dataclass(frozen=True)
class Walked:
    """What one policy did on a range."""

    policy: Policy
    decisions: tuple[Decision, ...]
    """In order; the first is the model that every policy starts with."""
    served: Mapping[Window, int]
    """Which version predicted each window, in order of time."""


def walk(policy: Policy, use_case: UseCase, versions: Versions, window_range: Window) -> Walked:
    """Live through a range: predict each window, watch it, and train when the policy asks.

    The moment of a window is its end: its own rows are known then, and the labels known before.
    Every policy starts with a model trained at the start of the range. A challenger that passes
    the gate serves at once, also where `retrain.approval` would let it wait for a person.
    Raises TrainingFailed where there is no first model.
    """
    return _Walk(policy, use_case, versions, window_range).go()


class _Walk:
    def __init__(
        self, policy: Policy, use_case: UseCase, versions: Versions, window_range: Window
    ) -> None:
        retrain = use_case.retrain.model_copy(update={"on": policy.causes})
        self._use_case = use_case.model_copy(update={"retrain": retrain})
        self._policy, self._versions, self._range = policy, versions, window_range
        self._windows = list(use_case.calendar.windows(window_range))
        self._watched = Watched(self._use_case, versions, self._windows)
        self._decisions: list[Decision] = []
        self._promotions: list[Promotion] = []
        self._last_cutoff: datetime | None = None
        self._answered_until: datetime | None = None
        self._answered: set[str] = set()

    def go(self) -> Walked:
        spec = self._use_case.model
        by_clock: dict[Window, list[tuple[str, str]]] = {}
        for window, cause, reason in self._policy.cutoffs(self._use_case, self._range):
            by_clock.setdefault(window, []).append((cause, reason))
        self._train(self._windows[0], FIRST, "a replay starts with it", spec.window)
        if not self._promotions:
            raise TrainingFailed(f"no model to start with: {self._decisions[0].why}")
        newest = None
        for index, window in enumerate(self._windows):
            if index > 0:
                for cause, reason in by_clock.get(window, ()):
                    self._train(window, cause, reason, spec.window)
            self._watched.served[window] = champion_at(self._promotions, window.start)
            rows = self._versions.known.positions(window)
            newest = window if rows.stop > rows.start else newest
            if newest is not None and self._policy.causes:
                self._react(index, newest)
        served = dict(self._watched.served)
        return Walked(self._policy, tuple(self._decisions), served)

    def _react(self, index: int, newest: Window) -> None:
        """Decide at the end of a window, as the live sensor does once its reports are there."""
        # While the last cutoff is too near nothing has to be judged.
        if is_resting(self._use_case, newest, self._last_cutoff):
            return
        verdicts = {
            cause: self._watched.recent(cause, index, self._answered_until)
            for cause in self._policy.causes
        }
        trigger = retraining_due(
            self._use_case, Seen(newest, self._last_cutoff, verdicts, self._answered_until)
        )
        # A run that failed is not started again for the same failures.
        if trigger is None or trigger.key in self._answered:
            return
        self._answered.add(trigger.key)
        window = self._use_case.retrain.window or self._use_case.model.window
        self._train(trigger.cutoff, trigger.cause, trigger.reason, window)

    def _train(self, cutoff: Window, cause: str, reason: str, window: Duration) -> None:
        try:
            version = self._versions.train(cutoff.start, window)
        except TrainingFailed as error:
            failed = Decision(cutoff, cause, reason, None, "failed", str(error), {})
            self._decisions.append(failed)
            return
        self._last_cutoff = max(filter(None, (self._last_cutoff, cutoff.start)), key=utc)
        if any(made.version == version for made in self._decisions):
            return
        champion = champion_if_any(self._promotions, cutoff.start)
        verdict = self._versions.judge(version, champion)
        if not verdict.is_unjudged:
            answered = filter(None, (self._answered_until, cutoff.start))
            self._answered_until = max(answered, key=utc)
        self._decisions.append(
            Decision(
                cutoff, cause, reason, version, verdict.decision, verdict.reason, verdict.figures
            )
        )
        if verdict.decision == "promoted":
            # Decided in this order: of two effective from the same moment the later one serves.
            moment = datetime.fromtimestamp(len(self._decisions), UTC)
            self._promotions.append(
                Promotion(version, cutoff.start, moment, "replay", "promoted", verdict.reason)
            )
            self._watched.forget_ahead()
