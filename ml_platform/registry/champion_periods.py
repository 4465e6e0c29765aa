"""Who served when: the promotion history as ranges of event time."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest

from ml_platform.registry.promotions import Promotion, champion_at


@dataclass(frozen=True)
class ChampionPeriod:
    """A version that serves from a moment of event time on, until the next one does."""

    version: int
    since: datetime


def champion_periods(decisions: Sequence[Promotion]) -> list[ChampionPeriod]:
    """Every champion of a history in order of event time; the last one serves now.

    >>> at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    >>> found = [Promotion(v, t, t, "gate", "promoted", "") for v, t in zip((1, 2), at)]
    >>> back = Promotion(1, at[1], at[2], "ada", "rolled back", "")
    >>> [period.version for period in champion_periods(found)]
    [1, 2]
    >>> [period.version for period in champion_periods([*found, back])]
    [1]
    """
    moments = sorted({p.effective_from.astimezone(UTC) for p in decisions if p.serves})
    found: list[ChampionPeriod] = []
    for moment in moments:
        version = champion_at(decisions, moment)
        if not found or found[-1].version != version:
            found.append(ChampionPeriod(version, moment))
    return found


def served_ranges(
    decisions: Sequence[Promotion],
) -> list[tuple[ChampionPeriod, datetime | None]]:
    """Every champion of a history with the event time at which the next one begins.

    The last one has none; a history without a champion has no ranges.

    >>> served_ranges([])
    []
    >>> at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2)]
    >>> found = [Promotion(v, t, t, "gate", "promoted", "") for v, t in zip((1, 2), at)]
    >>> [(period.version, end and end.day) for period, end in served_ranges(found)]
    [(1, 2), (2, None)]
    """
    periods = champion_periods(decisions)
    return list(zip_longest(periods, (period.since for period in periods[1:])))


def predecessors(decisions: Sequence[Promotion], now: datetime) -> list[int]:
    """Versions that served before the present champion first did, the latest of them first.

    One that a rollback has ended is none of them: the champion after it is an earlier one.

    >>> at = [datetime(2024, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    >>> found = [Promotion(v, t, t, "gate", "promoted", "") for v, t in zip((1, 2, 3), at)]
    >>> back = Promotion(2, at[2], at[2], "ada", "rolled back", "")
    >>> predecessors(found, at[2]), predecessors([*found, back], at[2])
    ([2, 1], [1])
    """
    served = [
        period.version
        for period in champion_periods(decisions)
        if period.since <= now.astimezone(UTC)
    ]
    before = served[: served.index(served[-1])] if served else []
    return list(dict.fromkeys(reversed(before)))
