"""What mirrors the lake elsewhere, compared with it and repaired.

A decision is first a row of the promotion history and then MLflow's alias; features are first rows
of the lake and then of the online store. Whoever dies in between leaves the two apart, so the next
one that looks brings them together: the lake is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from ml_platform.errors import NotPublished, OnlineStoreError, PlatformError
from ml_platform.features import open_online_store, publish, unpublished
from ml_platform.registry.models import Registry
from ml_platform.registry.promotions import CHAMPION, Promotion, champion_at, history
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

ALIAS = f"MLflow's alias '{CHAMPION}'"


@dataclass(frozen=True)
class MirrorDifference:
    """A mirror that does not show what the lake says."""

    mirror: str
    """`MLflow's alias 'champion'`, `the online store of pace`."""
    holds: str
    """What it shows."""
    should: str
    """What the lake says."""
    problem: str | None = None
    """Why it could not be compared or repaired."""

    def __str__(self) -> str:
        if self.problem is not None:
            return f"{self.mirror} cannot be compared with the lake: {self.problem}"
        return f"{self.mirror} shows {self.holds}, the lake says {self.should}"


def differences(lake: Lake, registry: Registry, use_case: UseCase) -> list[MirrorDifference]:
    """Every mirror of a use case that shows something else than the lake; nothing is changed."""
    return [
        *_of_alias(registry, use_case, history(lake, use_case)),
        *_of_online_store(lake, use_case),
    ]


def repair(lake: Lake, registry: Registry, use_case: UseCase) -> list[MirrorDifference]:
    """Make every mirror show what the lake says; what differed before.

    Only what differs is written, so that looking costs little. What cannot be reached stays as it
    is, and has a `problem`: the command that asks continues, and a later one repairs it.
    """
    found = []
    for difference in differences(lake, registry, use_case):
        if difference.problem is None:
            try:
                if difference.mirror == ALIAS:
                    point_alias(lake, registry, use_case)
                else:
                    _publish_again(lake, use_case)
            except PlatformError as error:
                found.append(MirrorDifference(*_shown(difference), problem=str(error)))
                continue
        found.append(difference)
    return found


def point_alias(lake: Lake, registry: Registry, use_case: UseCase) -> None:
    """Point MLflow's alias `champion` at the version that serves the newest event times."""
    pointed: int | None = None
    # Looked at again once it is set: somebody may have decided, and set it, in the meantime.
    while (wanted := _serving(history(lake, use_case))) not in {None, pointed}:
        assert wanted is not None
        registry.set_alias(use_case, CHAMPION, wanted)
        pointed = wanted


def _serving(decisions: Sequence[Promotion]) -> int | None:
    """The version that serves the newest event times; None where none ever did."""
    serving = [p for p in decisions if p.serves]
    if not serving:
        return None
    return champion_at(serving, max(p.effective_from for p in serving))


def _of_alias(
    registry: Registry, use_case: UseCase, decisions: Sequence[Promotion]
) -> list[MirrorDifference]:
    wanted = _serving(decisions)
    if wanted is None:
        return []
    should = f"version {wanted}"
    try:
        held = registry.alias(use_case, CHAMPION)
    except PlatformError as error:
        return [MirrorDifference(ALIAS, "", should, problem=str(error))]
    if held == wanted:
        return []
    return [MirrorDifference(ALIAS, "no version" if held is None else f"version {held}", should)]


def _of_online_store(lake: Lake, use_case: UseCase) -> list[MirrorDifference]:
    found = []
    store = open_online_store(lake.settings)
    try:
        for view in use_case.model_views:
            mirror = f"the online store of {view}"
            try:
                behind = unpublished(lake, store, use_case, view)
            except NotPublished:
                # Nobody has asked for it yet.
                continue
            except OnlineStoreError as error:
                found.append(MirrorDifference(mirror, "", "", problem=str(error)))
                continue
            if behind is not None:
                held, newest = behind
                found.append(MirrorDifference(mirror, _rows_until(held), _rows_until(newest)))
    finally:
        store.close()
    return found


def _publish_again(lake: Lake, use_case: UseCase) -> None:
    store = open_online_store(lake.settings)
    try:
        for view in use_case.model_views:
            behind = unpublished(lake, store, use_case, view)
            if behind is not None:
                window = use_case.calendar.window_at(behind[1])
                publish(lake, store, use_case, view, window)
    finally:
        store.close()


def _rows_until(moment: datetime | None) -> str:
    return "no row" if moment is None else f"rows up to {moment.isoformat()}"


def _shown(difference: MirrorDifference) -> tuple[str, str, str]:
    return difference.mirror, difference.holds, difference.should
