"""The newest feature rows in the store that features are looked up from online."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_platform.backfill import NOTHING_TO_COMPUTE
from ml_platform.features import Published, publish_views
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import ONLINE_FEATURES, UseCase, digest, feature_table
from ml_platform.spec.windows import Window
from ml_platform_dagster.assets.automation import online_follows
from ml_platform_dagster.assets.metadata import asset_key, common
from ml_platform_dagster.assets.partition_events import left_out, materialized
from ml_platform_dagster.assets.partitions import (
    backfill_policy,
    looking_back,
    partitions_of,
    range_of,
)
from ml_platform_dagster.resources import LakeResource, OnlineStoreResource


def build_online(use_case: UseCase, settings: Settings) -> list[dg.AssetsDefinition]:
    """The asset of a use case's online features; none where the model is given no feature view."""
    views = use_case.model_views
    if not views:
        return []
    same_window = looking_back(use_case, Duration(0, "d"))
    read = dict.fromkeys(source for declared in views.values() for source in declared.reads)

    @dg.asset(
        key=asset_key(use_case, ONLINE_FEATURES),
        deps=[
            dg.AssetDep(asset_key(use_case, feature_table(view)), partition_mapping=same_window)
            for view in views
        ],
        partitions_def=partitions_of(use_case),
        backfill_policy=backfill_policy(settings),
        automation_condition=online_follows(use_case, *read),
        code_version=digest({view: declared.features for view, declared in views.items()}),
        description=(
            f"The newest rows of {', '.join(views)} by entity, where they are looked up to answer "
            "a request: equal to the bit to what the point-in-time join yields.\n\n"
            "The store keeps what requests of the newest partition and of the one before it are "
            "looked up from. Of older partitions nothing is stored; kept ones that lack come along."
        ),
        output_required=False,
        **common(use_case, "redis" if settings.online_store else "sqlite"),
    )
    def online_features(
        context: dg.AssetExecutionContext, lake: LakeResource, online_store: OnlineStoreResource
    ) -> Iterator[Any]:
        window_range = range_of(context, use_case)
        try:
            published = publish_views(lake.lake, online_store.store, use_case, window_range)
        except NOTHING_TO_COMPUTE as error:
            yield from left_out(context, error)
            return
        now = datetime.now(UTC)
        yield from materialized(
            context,
            {
                use_case.calendar.key(window): _metadata(published, window, now)
                for window in use_case.calendar.windows(window_range)
            },
        )

    return [online_features]


def _metadata(published: Mapping[str, Published], window: Window, now: datetime) -> dict[str, Any]:
    rows = {view: each.rows[window] for view, each in published.items()}
    newest = {view: each.newest for view, each in published.items() if each.newest}
    return {
        "dagster/partition_row_count": sum(rows.values()),
        # Whatever changes after it has to be published again.
        "snapshot": min(each.snapshot for each in published.values()),
        **{f"rows of {view}": count for view, count in rows.items()},
        **{f"newest of {view}": time.isoformat() for view, time in newest.items()},
        **{
            f"age of {view} in hours": (now - time).total_seconds() / 3600
            for view, time in newest.items()
        },
    }
