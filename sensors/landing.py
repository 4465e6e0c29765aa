"""New files in landing become runs: ingest, and everything that follows from it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import pairwise

import dagster as dg

from ml_platform.errors import LandingError
from ml_platform.registry import history
from ml_platform.settings import Settings
from ml_platform.sources import Arrivals, arrivals
from ml_platform.spec.use_case import UseCase, digest, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit
from resources import LakeResource, range_tags
from sensors.status import sensor_status


def build_landing(use_case: UseCase, settings: Settings) -> list[dg.SensorDefinition]:
    """The sensor that starts runs for partitions that new or corrected files have rows for."""
    downstream = [
        *(feature_table(view) for view in use_case.features),
        "labels",
        "predictions",
        "drift_report",
        "performance_report",
    ]
    names = [*use_case.sources, *downstream]

    @dg.sensor(
        name=f"{use_case.name}_landing",
        target=dg.AssetSelection.assets(*([use_case.name, name] for name in names)),
        minimum_interval_seconds=30,
        default_status=sensor_status(settings),
        description="Ingests what lands, then computes features, labels, predictions and reports.",
    )
    def sensor(context: dg.SensorEvaluationContext, lake: LakeResource) -> dg.SensorResult:
        since = int(context.cursor) if context.cursor else None
        commit = Commit(f"sensor {context.sensor_name}", use_case.code_version, "index landing")
        found: dict[str, Arrivals] = {}
        for source in use_case.sources:
            try:
                found[source] = arrivals(lake.lake, use_case, source, since, commit)
            except LandingError as error:
                context.log.info(str(error))
        # Not the newest: what lands for one source while another is looked at comes next time.
        seen = min((a.snapshot for a in found.values()), default=since)
        serving = any(promotion.serves for promotion in history(lake.lake, use_case))
        tables = [name for name in downstream if serving or name not in downstream[-3:]]
        windows = sorted({w for a in found.values() for w in a.windows}, key=_start)
        sources = [source for source, a in found.items() if a.windows]
        requests = [
            _request(use_case, [*sources, *tables], stretch, seen)
            for stretch in contiguous(windows)
        ]
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else dg.SkipReason("nothing new has landed"),
            cursor=None if seen is None else str(seen),
        )

    return [sensor]


def contiguous(windows: Sequence[Window]) -> Iterator[tuple[Window, Window]]:
    """First and last window of each unbroken run of windows, given in order."""
    if not windows:
        return
    first = windows[0]
    for one, other in pairwise(windows):
        if one.end.astimezone(UTC) != other.start.astimezone(UTC):
            yield first, one
            first = other
    yield first, windows[-1]


def _request(
    use_case: UseCase, tables: Sequence[str], stretch: tuple[Window, Window], seen: int | None
) -> dg.RunRequest:
    keys = [use_case.calendar.key(window) for window in stretch]
    # What has landed is part of the run key: with the partition alone, a correction of the same
    # day would be taken for the run that was there before.
    return dg.RunRequest(
        run_key=f"{keys[0]}-{keys[-1]}-{digest(seen)}",
        asset_selection=[dg.AssetKey([use_case.name, table]) for table in tables],
        tags=range_tags(keys),
    )


def _start(window: Window) -> datetime:
    return window.start.astimezone(UTC)
