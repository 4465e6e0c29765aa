"""When an asset follows what it depends on, by itself."""

from collections.abc import Set as AbstractSet

import dagster as dg
from dagster import AssetKey, AutomationContext, AutomationResult, DagsterEventType

from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.assets.metadata import asset_key
from ml_platform_dagster.resources.private import EntitySubset
from ml_platform_dagster.resources.ranges import range_in


class InputsChanged(dg.AutomationCondition[AssetKey]):
    """True of partitions that depend on one whose content became another, until they are requested.

    Dagster's own `any_deps_updated` asks whether something was materialised, also where nothing
    changed, and forgets what happens between a request and the run that it starts.
    """

    def __init__(self, ignored: frozenset[AssetKey]) -> None:
        self.ignored = ignored

    @property
    def description(self) -> str:
        return "An input holds something else than before"

    async def evaluate(  # type: ignore[override]
        self, context: AutomationContext[AssetKey]
    ) -> AutomationResult[AssetKey]:
        pending = context.previous_true_subset or context.get_empty_subset()
        requested = context.get_previous_requested_subset(context.key)
        if requested is not None:
            # What was seen up to the last tick is part of the run that it requested.
            pending = pending.compute_difference(requested)
        if context.previous_temporal_context is not None:
            for parent in sorted(context.asset_graph.get(context.key).parent_keys - self.ignored):
                pending = pending.compute_union(await self._because_of(context, parent))
        return AutomationResult(context, pending)

    async def _because_of(
        self, context: AutomationContext[AssetKey], parent: AssetKey
    ) -> EntitySubset[AssetKey]:
        view, since = context.asset_graph_view, context.previous_temporal_context
        assert since is not None
        updated = await view.compute_updated_since_temporal_context_subset(
            key=parent, temporal_context=since
        )
        if updated.is_empty:
            return context.get_empty_subset()
        changed = await view.compute_data_version_changed_since_temporal_context_subset(
            key=parent, temporal_context=since
        )
        # Where the last attempt failed, or was stopped by a check, another one is due as soon as
        # something that it depends on is there again, changed or not.
        due = updated.compute_mapped_subset(context.key, direction="down")
        failed = await view.compute_execution_failed_subset(key=context.key, from_subset=due)
        found = failed
        for run_id, partitions in _by_run(context, changed, since.last_event_id).items():
            affected = partitions.compute_mapped_subset(context.key, direction="down")
            found = found.compute_union(affected.compute_difference(_done_by(context, run_id)))
        return found


class HasRows(dg.AutomationCondition[AssetKey]):
    """True of partitions for which at least one of some sources has landed."""

    def __init__(self, sources: tuple[AssetKey, ...]) -> None:
        self.sources = sources

    @property
    def description(self) -> str:
        return "Something has landed for the partition"

    async def evaluate(  # type: ignore[override]
        self, context: AutomationContext[AssetKey]
    ) -> AutomationResult[AssetKey]:
        landed: set[str] = set()
        for source in self.sources:
            asked = _partitions(
                context, source, context.candidate_subset.expensively_compute_partition_keys()
            )
            missing = await context.asset_graph_view.compute_missing_subset(
                key=source, from_subset=asked
            )
            landed |= asked.compute_difference(missing).expensively_compute_partition_keys()
        return AutomationResult(context, _partitions(context, context.key, landed))


def follows(use_case: UseCase, *sources: str) -> dg.AutomationCondition[AssetKey]:
    """Compute a partition when one that it depends on has changed, of any age.

    sources: a partition for which none of them has landed is left alone: it is not due yet.
    Not while it or something that it depends on is being computed, and never past a blocking check
    that failed. Promotions score nothing again: a new champion begins with the next partition.
    """
    apart = frozenset({asset_key(use_case, "promotions")})
    selection = dg.AssetSelection.assets(*apart)
    condition = dg.AutomationCondition
    # A check that has never run says nothing, and one that fails in the run stops it there.
    failed = condition.any_deps_match(
        condition.any_checks_match(condition.check_failed(), blocking_only=True)
    ).ignore(selection)
    requested = condition.any_deps_match(condition.will_be_requested()).ignore(selection)
    return (
        (InputsChanged(apart) | requested)
        & HasRows(tuple(asset_key(use_case, source) for source in sources))
        & ~condition.in_progress()
        & ~condition.any_deps_in_progress().ignore(selection)
        & ~failed
    )


def _by_run(
    context: AutomationContext[AssetKey], changed: EntitySubset[AssetKey], since: int | None
) -> dict[str, EntitySubset[AssetKey]]:
    """Partitions of an asset by the run that wrote them last."""
    if changed.is_empty:
        return {}
    latest = {
        record.partition: record.run_id or ""
        for record in context.asset_graph_view.instance.get_asset_event_summary_records(
            DagsterEventType.ASSET_MATERIALIZATION,
            asset_key=changed.key,
            after_storage_id=since,
            ascending=True,
        )
    }
    runs: dict[str, set[str]] = {}
    for key in changed.expensively_compute_partition_keys():
        runs.setdefault(latest[key], set()).add(key)
    return {run: _partitions(context, changed.key, keys) for run, keys in runs.items()}


def _done_by(context: AutomationContext[AssetKey], run_id: str) -> EntitySubset[AssetKey]:
    """What the run that changed an input computes of the asset too, afterwards."""
    run = context.asset_graph_view.instance.get_run_by_id(run_id)
    selected = run is not None and context.key in (run.asset_selection or ())
    window_range = range_in(run.tags, context.key.path[-1]) if run and selected else None
    definition = context.partitions_def
    if window_range is None or definition is None:
        return context.get_empty_subset()
    keys = definition.get_partition_keys_in_range(dg.PartitionKeyRange(*window_range))
    return _partitions(context, context.key, set(keys))


def _partitions(
    context: AutomationContext[AssetKey], key: AssetKey, partitions: AbstractSet[str]
) -> EntitySubset[AssetKey]:
    definition = context.asset_graph.get(key).partitions_def
    assert definition is not None
    return context.asset_graph_view.get_subset_from_partition_keys(key, definition, partitions)
