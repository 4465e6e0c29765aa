"""Freshness policies: what Dagster shows as late in its UI."""

from datetime import timedelta

import dagster as dg

from ml_platform.alerts.freshness import grace
from ml_platform.spec.tables import tables_of
from ml_platform.spec.use_case import LIVE_REPORTS, LOGGED_SOURCES, UseCase

LENGTHS = {"hourly": timedelta(hours=1), "daily": timedelta(days=1), "weekly": timedelta(weeks=1)}
LONGEST_MONTH = timedelta(days=31)


def with_freshness(asset: dg.AssetsDefinition, use_case: UseCase) -> dg.AssetsDefinition:
    """The asset with a policy, if it is a table of a history that continues.

    Dagster knows when an asset was last materialised, whichever its partition: the policy asks
    that this happens once a window. Which partition lacks is what `ml-platform status` and the
    alerts say.
    """
    if use_case.partitions.closes_at is not None:
        return asset
    length = LENGTHS.get(use_case.partitions.cadence, LONGEST_MONTH)
    late = length + timedelta(seconds=grace(use_case).seconds)
    policy = dg.FreshnessPolicy.time_window(fail_window=late)
    # What is written on request comes when somebody asks.
    on_request = {*LOGGED_SOURCES, *LIVE_REPORTS}
    tables = {
        dg.AssetKey([use_case.name, table])
        for table in tables_of(use_case)
        if table not in on_request
    }
    return asset.map_asset_specs(
        lambda spec: (
            spec.replace_attributes(freshness_policy=policy) if spec.key in tables else spec
        )
    )
