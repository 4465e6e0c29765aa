"""Kinds of leaks in labels: known too early, made of later rows, a horizon that is too short."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_platform.features.planting.outcomes import AS_IT_IS
from ml_platform.spec.duration import Duration
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase

EARLIER: Mapping[str, str] = {
    "known at its event time": "event_time",
    "known at its event time, in one of a hundred": (
        "CASE WHEN hash({entity}, event_time) % 100 = 0 THEN event_time ELSE known_at END"
    ),
    "known a second too early": "known_at - INTERVAL 1 SECOND",
    "known after half of its delay": (
        "event_time + to_microseconds((epoch_us(known_at) - epoch_us(event_time)) // 2)"
    ),
}
"""What becomes of `known_at`, as SQL over the labels."""
LAST = "the last label of all"
NO_HORIZON, HALF_HORIZON = "no horizon", "half of the horizon"


@dataclass(frozen=True)
class LabelPlant:
    """A use case whose labels leak."""

    use_case: UseCase
    is_early: bool = False
    """Whether its labels say to be known too early."""
    is_short: bool = False
    """Whether its horizon is too short."""


def planted_labels(use_case: UseCase) -> dict[str, LabelPlant]:
    """The use case with a leak of each kind in its labels; by kind."""
    entity = ", ".join(quote(column) for column in use_case.examples.entity)
    itself = f"(\n{use_case.label.query})"
    last = f"SELECT * REPLACE (last(label ORDER BY event_time, {entity}) OVER () AS label)"
    early = {
        kind: LabelPlant(
            _with(use_case, f"SELECT * REPLACE ({form.format(entity=entity)} AS known_at) "
                            f"FROM {itself}"),
            is_early=True,
        )
        for kind, form in EARLIER.items()
    }  # fmt: skip
    query, horizon = use_case.label.query, use_case.label.horizon
    return {
        AS_IT_IS: LabelPlant(use_case),
        **early,
        LAST: LabelPlant(_with(use_case, f"{last} FROM {itself}")),
        NO_HORIZON: LabelPlant(_with(use_case, query, Duration(0, "d")), is_short=True),
        HALF_HORIZON: LabelPlant(_with(use_case, query, half(horizon)), is_short=True),
    }


def half(duration: Duration) -> Duration:
    """Half of a duration; in exact minutes where its unit cannot be halved.

    >>> str(half(Duration(2, "d"))), str(half(Duration(1, "d")))
    ('1d', '720m')
    """
    if duration.count % 2:
        return Duration(duration.seconds // 120, "m")
    return Duration(duration.count // 2, duration.unit)


def _with(use_case: UseCase, query: str, horizon: Duration | None = None) -> UseCase:
    label = use_case.label.model_copy(
        update={"query": query, "horizon": horizon or use_case.label.horizon}
    )
    return use_case.model_copy(update={"label": label})
