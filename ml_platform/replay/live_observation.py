"""What is known of a use case now: what the live sensor decides on."""

from ml_platform.errors import TableNotFound
from ml_platform.monitoring import retraining_verdicts
from ml_platform.registry import Registry, history
from ml_platform.replay.policy import CAUSES, Seen
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START


def observe(lake: Lake, registry: Registry, use_case: UseCase) -> Seen:
    """The reports that the lake holds and the latest cutoff that the registry knows."""
    verdicts = {
        cause: retraining_verdicts(lake, use_case, cause)
        for cause in CAUSES
        if cause in use_case.retrain.on
    }
    unjudged = {p.version for p in history(lake, use_case) if p.is_unjudged}
    return Seen(
        _newest_predicted(lake, use_case),
        registry.last_cutoff(use_case),
        verdicts,
        answered=registry.last_cutoff(use_case, unjudged),
    )


def _newest_predicted(lake: Lake, use_case: UseCase) -> Window | None:
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, "predictions")
        except TableNotFound:
            return None
        row = cursor.execute(f"SELECT max({WINDOW_START}) FROM {relation}").fetchone()
    if row is None or row[0] is None:
        return None
    return use_case.calendar.window_stored(row[0])
