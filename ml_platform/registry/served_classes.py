"""What a label can be, by the versions that serve."""

from datetime import UTC, datetime

from ml_platform.registry.models import Registry
from ml_platform.registry.promotions import champion_if_any, history
from ml_platform.registry.rollouts import rollouts, tried_now
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake


def served_classes(lake: Lake, registry: Registry, use_case: UseCase) -> frozenset[str]:
    """Classes of the champion and of the version that is tried beside it; none where none serves.

    Empty for tasks without classes.
    """
    champion = champion_if_any(history(lake, use_case), datetime.now(UTC))
    if use_case.label.task != "multiclass" or champion is None:
        return frozenset()
    tried = tried_now(rollouts(lake, use_case))
    versions = {champion, *([tried.version] if tried else [])}
    return frozenset(n for v in versions for n in registry.load(use_case, v).classes)
