"""Which retraining policy is worth it: what each came to on the same range, beyond noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_platform.errors import LabelsNotArrived
from ml_platform.replay.outcome import ReplayOutcome
from ml_platform.replay.versions import Versions
from ml_platform.replay.walk import Decision, Walked
from ml_platform.resampling import gain
from ml_platform.spec.declared import Metric
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

CONFIDENCE = 0.95
TAILS = ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class PolicyStanding:
    """What one policy came to."""

    policy: str
    decisions: tuple[Decision, ...]
    by_window: Mapping[Window, float]
    """The model's metric of each window that has one, by all labels known now."""
    mean: float
    """Mean of the windows, weighted by labelled rows: how well each is ranked within itself."""
    together: Mapping[str, float]
    """Every metric of all predictions of the range taken together."""
    value: float
    """The model's metric of all predictions taken together: what policies are compared by."""
    regret: float
    """How much worse the value is than that of the best policy, in the metric's unit."""
    regret_bounds: tuple[float, float]
    """Where the regret lies with 95% confidence, by the paired bootstrap over windows."""
    fit_seconds: float
    score_seconds: float

    @property
    def seconds(self) -> float:
        """What its trainings and predictions cost."""
        return self.fit_seconds + self.score_seconds

    @property
    def is_best_or_as_good(self) -> bool:
        """Whether the best policy is not better than this one beyond noise."""
        return self.regret_bounds[0] <= 0

    def count(self, decision: str) -> int:
        """How many of its challengers were promoted, refused or failed; the first model is none."""
        return sum(made.decision == decision for made in self.decisions[1:])

    @property
    def trainings(self) -> int:
        """How often it trained after the first model."""
        return len(self.decisions) - 1


@dataclass(frozen=True)
class PolicyComparison:
    """Policies on one range, in the order in which they were asked for."""

    use_case: str
    metric: Metric
    range: Window
    rows: int
    """Predictions of the range whose label is known."""
    standings: tuple[PolicyStanding, ...]

    @property
    def best(self) -> PolicyStanding:
        return next(standing for standing in self.standings if standing.regret == 0)

    @property
    def cheapest_as_good(self) -> PolicyStanding:
        """Of those that the best does not beat beyond noise, the one with the fewest trainings."""
        as_good = [standing for standing in self.standings if standing.is_best_or_as_good]
        return min(as_good, key=lambda standing: (standing.trainings, standing.seconds))

    @property
    def answer(self) -> str:
        """In plain words which policy is worth it."""
        best, cheap = self.best, self.cheapest_as_good
        said = [f"{best.policy} did best: {self.metric} {best.value:.4f}."]
        for standing in self.standings:
            if not standing.is_best_or_as_good:
                said.append(f"It beats {standing.policy} by {_gap(standing)}.")
        others = [s for s in self.standings if s.is_best_or_as_good and s is not best]
        if others:
            gaps = ", ".join(f"{s.policy} ({_gap(s)})" for s in others)
            said.append(f"Within noise of it: {gaps}.")
        if best.trainings == 0:
            said.append("Retraining did not pay.")
        elif cheap is best:
            said.append(f"None that is as good trains less often than its {_times(best)}.")
        else:
            said.append(
                f"The cheapest that is as good is {cheap.policy}: {_times(cheap)} against "
                f"{best.trainings}."
            )
        return " ".join(said)


def compare(
    use_case: UseCase, versions: Versions, walks: Sequence[Walked], window_range: Window
) -> PolicyComparison:
    """Hold policies side by side, by all labels known now.

    Raises LabelsNotArrived where not one window of the range can be measured.
    """
    metric = use_case.model.metric
    now = versions.known.last_label
    found = [
        {
            window: versions.measure(version, window, now)
            for window, version in walked.served.items()
        }
        for walked in walks
    ]
    windows = [w for w in found[0] if all(metric in each[w].metrics for each in found)]
    if not windows:
        raise LabelsNotArrived(
            f"{use_case.name}: {metric} is not defined in any window of {window_range}; replay a "
            "range whose labels have arrived"
        )
    by_window = [{w: each[w].metrics[metric] for w in windows} for each in found]
    weights = np.array([float(found[0][w].labelled) for w in windows])
    outcomes = [ReplayOutcome.of(versions, walked.served) for walked in walks]
    together = [outcome.measure(use_case) for outcome in outcomes]
    values = np.array([each[metric] for each in together])
    best = int(np.argmax(gain(metric, values, np.zeros(len(values)))))
    drawn = [outcome.resampled(use_case) for outcome in outcomes]
    regrets = [np.quantile(gain(metric, drawn[best], each), TAILS).tolist() for each in drawn]
    standings = tuple(
        PolicyStanding(
            policy=walked.policy.name,
            decisions=walked.decisions,
            by_window=by_window[place],
            mean=float(np.average(list(by_window[place].values()), weights=weights)),
            together=together[place],
            value=float(values[place]),
            regret=float(gain(metric, values[best], values[place])),
            regret_bounds=(regrets[place][0], regrets[place][1]),
            fit_seconds=versions.fit_seconds(made.version for made in walked.decisions),
            score_seconds=versions.score_seconds(walked.served),
        )
        for place, walked in enumerate(walks)
    )
    return PolicyComparison(use_case.name, metric, window_range, outcomes[0].rows, standings)


def _gap(standing: PolicyStanding) -> str:
    low, high = standing.regret_bounds
    return f"{standing.regret:.4f} ({CONFIDENCE:.0%}: {low:+.4f} to {high:+.4f})"


def _times(standing: PolicyStanding) -> str:
    return f"{standing.trainings} training{'' if standing.trainings == 1 else 's'}"
