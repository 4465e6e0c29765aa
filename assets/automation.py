"""When an asset follows what it depends on, by itself."""

from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing

import dagster as dg
from dagster import AssetKey, AutomationContext, AutomationResult

from ml_platform.backfill.upkeep import due_after, online_due_after
from ml_platform.spec.use_case import ONLINE_FEATURES, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform_dagster.assets.metadata import asset_key
from ml_platform_dagster.resources.private import EntitySubset
from ml_platform_dagster.resources.ticks import tick_settings

PARTITIONS_AT_ONCE, LATEST = 500, 1000
"""Partitions that Dagster is asked about, and how many of their materialisations it reads; one that
is in none of them is published again."""

Requested = Mapping[str, Collection[Window]]
Judge = Callable[[Lake, AutomationContext[AssetKey], AbstractSet[Window], Requested], set[Window]]
"""Which windows have to be computed, once windows of other tables that are requested have been."""


class Due(dg.AutomationCondition[AssetKey]):
    """True of partitions that have to be computed.

    Those are looked at that depend on a partition that was written since the last tick or is
    requested in this one, and for which one of `sources` has landed; `held` ones are kept for later
    ticks. What the lake says decides, as for backfills and `status`. Dagster's own
    `any_deps_updated` asks whether something was materialised, also where nothing changed, and
    forgets what happens between a request and the run that it starts.
    """

    def __init__(
        self,
        use_case: UseCase,
        judge: Judge,
        sources: Sequence[AssetKey],
        ignored: set[AssetKey],
        held: dg.AutomationCondition[AssetKey],
    ) -> None:
        self.use_case = use_case
        self.judge = judge
        self.sources = sources
        self.ignored = ignored
        self.held = held

    @property
    def description(self) -> str:
        return "It has to be computed, by what the lake says of it and of its inputs, and not held"

    @property
    def children(self) -> Sequence[dg.AutomationCondition[AssetKey]]:
        return [self.held]

    async def evaluate(  # type: ignore[override]
        self, context: AutomationContext[AssetKey]
    ) -> AutomationResult[AssetKey]:
        parents = sorted(context.asset_graph.get(context.key).parent_keys - self.ignored)
        requested = {
            key: context.request_subsets_by_key[key]
            for key in parents
            if key in context.request_subsets_by_key
        }
        looked_at = _held_before(context)
        for subset in (*requested.values(), *await _written(context, parents)):
            looked_at = looked_at.compute_union(
                subset.compute_mapped_subset(context.key, direction="down")
            )
        keys = await self._with_rows(context, looked_at.expensively_compute_partition_keys())
        held = await context.for_child_condition(
            self.held, child_indices=[0], candidate_subset=_partitions(context, context.key, keys)
        ).evaluate_async()
        # The lake is asked afterwards: what a run that is over has computed is no longer due.
        free = keys - held.true_subset.expensively_compute_partition_keys()
        due = self._judged(context, free, requested) if free else set()
        return AutomationResult(
            context,
            _partitions(context, context.key, due),
            child_results=[held],
            cursor=dg.serialize_value(held.true_subset.convert_to_serializable_subset()),
        )

    async def _with_rows(
        self, context: AutomationContext[AssetKey], keys: AbstractSet[str]
    ) -> set[str]:
        found: set[str] = set()
        for source in self.sources if keys else ():
            asked = _partitions(context, source, keys)
            missing = await context.asset_graph_view.compute_missing_subset(
                key=source, from_subset=asked
            )
            found |= asked.compute_difference(missing).expensively_compute_partition_keys()
        return found

    def _judged(
        self,
        context: AutomationContext[AssetKey],
        keys: set[str],
        requested: Mapping[AssetKey, EntitySubset[AssetKey]],
    ) -> set[str]:
        calendar = self.use_case.calendar
        tables = {
            key.path[-1]: {
                calendar.window_listed(each) for each in subset.expensively_compute_partition_keys()
            }
            for key, subset in requested.items()
        }
        with closing(Lake(tick_settings())) as lake:
            windows = set(map(calendar.window_listed, keys))
            return set(map(calendar.key, self.judge(lake, context, windows, tables)))


def follows(use_case: UseCase, table: str, *sources: str) -> dg.AutomationCondition[AssetKey]:
    """Compute a partition of a table when one that it depends on has changed, of any age.

    sources: a partition for which none of them has landed is left alone: it is not due yet.
    Not while it or something that it depends on is being computed, and never past a blocking check
    that failed. Promotions score nothing again: a new champion begins with the next partition.
    """

    def judge(
        lake: Lake,
        _: AutomationContext[AssetKey],
        windows: AbstractSet[Window],
        requested: Requested,
    ) -> set[Window]:
        return due_after(lake, use_case, table, windows, requested)

    return _follows(use_case, judge, sources)


def online_follows(use_case: UseCase, *sources: str) -> dg.AutomationCondition[AssetKey]:
    """As `follows`, of what is published to the online store."""

    def judge(
        lake: Lake,
        context: AutomationContext[AssetKey],
        windows: AbstractSet[Window],
        requested: Requested,
    ) -> set[Window]:
        published = _published(context, use_case, windows)
        return online_due_after(lake, use_case, windows, requested, published)

    return _follows(use_case, judge, sources)


def _follows(
    use_case: UseCase, judge: Judge, sources: Sequence[str]
) -> dg.AutomationCondition[AssetKey]:
    promotions = asset_key(use_case, "promotions")
    apart = dg.AssetSelection.assets(promotions)
    condition = dg.AutomationCondition
    landed = [asset_key(use_case, source) for source in sources]
    # A check that has never run says nothing, and one that fails in the run stops it there.
    failed = condition.any_deps_match(
        condition.any_checks_match(condition.check_failed(), blocking_only=True)
    ).ignore(apart)
    held = condition.in_progress() | condition.any_deps_in_progress().ignore(apart) | failed
    return Due(use_case, judge, landed, {promotions}, held)


def _held_before(context: AutomationContext[AssetKey]) -> EntitySubset[AssetKey]:
    empty = context.get_empty_subset()
    if context.cursor is None:
        return empty
    kept = dg.deserialize_value(context.cursor, type(empty.convert_to_serializable_subset()))
    # None where the asset has other partitions since.
    return context.asset_graph_view.get_subset_from_serializable_subset(kept) or empty


async def _written(
    context: AutomationContext[AssetKey], parents: Sequence[AssetKey]
) -> list[EntitySubset[AssetKey]]:
    """What was written of each parent since the last tick; nothing at the first."""
    since = context.previous_temporal_context
    if since is None:
        return []
    return [
        await context.asset_graph_view.compute_updated_since_temporal_context_subset(
            key=parent, temporal_context=since
        )
        for parent in parents
    ]


def _published(
    context: AutomationContext[AssetKey], use_case: UseCase, windows: AbstractSet[Window]
) -> dict[Window, int]:
    """The snapshot that each window was last published from, where that is known."""
    calendar, key = use_case.calendar, asset_key(use_case, ONLINE_FEATURES)
    instance = context.asset_graph_view.instance
    keys = list(map(calendar.key, windows))
    found: dict[Window, int] = {}
    for first in range(0, len(keys), PARTITIONS_AT_ONCE):
        some = keys[first : first + PARTITIONS_AT_ONCE]
        asked = dg.AssetRecordsFilter(key, asset_partitions=some)
        for record in instance.fetch_materializations(asked, LATEST).records:
            made = record.asset_materialization
            # A materialisation that a person reports in the UI published nothing.
            said = made.metadata.get("snapshot") if made else None
            if said is not None and isinstance(said.value, int):
                # The newest come first.
                found.setdefault(calendar.window_listed(str(record.partition_key)), said.value)
    return found


def _partitions(
    context: AutomationContext[AssetKey], key: AssetKey, partitions: AbstractSet[str]
) -> EntitySubset[AssetKey]:
    definition = context.asset_graph.get(key).partitions_def
    assert definition is not None
    return context.asset_graph_view.get_subset_from_partition_keys(key, definition, partitions)
