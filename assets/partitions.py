"""Dagster partitions of a use case's calendar, and which of them depend on which."""

from collections.abc import Callable
from functools import partial

import dagster as dg

from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.reach import steps_after, steps_before
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Window
from ml_platform_dagster.resources.ranges import range_in

DEFINITIONS: dict[Cadence, tuple[Callable[..., dg.TimeWindowPartitionsDefinition], str]] = {
    Cadence.hourly: (dg.HourlyPartitionsDefinition, "%Y-%m-%d-%H:%M"),
    Cadence.daily: (dg.DailyPartitionsDefinition, "%Y-%m-%d"),
    Cadence.weekly: (dg.WeeklyPartitionsDefinition, "%Y-%m-%d"),
    Cadence.monthly: (dg.MonthlyPartitionsDefinition, "%Y-%m-%d"),
}


def cutoffs_of(use_case: UseCase) -> dg.TimeWindowPartitionsDefinition:
    """The cutoffs of a use case, starts of its partitions: there as soon as one has begun."""
    return partitions_of(use_case, begun=1)


def partitions_of(use_case: UseCase, *, begun: int = 0) -> dg.TimeWindowPartitionsDefinition:
    """The partitions of every table of a use case: those that are over, and so many more."""
    kind, form = DEFINITIONS[use_case.partitions.cadence]
    calendar = use_case.calendar
    end = use_case.partitions.closes_at
    if use_case.partitions.cadence is Cadence.weekly:
        kind = partial(dg.WeeklyPartitionsDefinition, day_offset=calendar.week_starts.offset)
    return kind(
        start_date=calendar.start.strftime(form),
        end_date=end.strftime(form) if end else None,
        timezone=use_case.timezone,
        end_offset=begun,
    )


def backfill_policy(settings: Settings) -> dg.BackfillPolicy:
    """One run for a backfill of any length, unless a setting caps its partitions."""
    if settings.max_partitions_per_run is None:
        return dg.BackfillPolicy.single_run()
    return dg.BackfillPolicy.multi_run(settings.max_partitions_per_run)


def range_of(context: dg.AssetExecutionContext, use_case: UseCase) -> Window:
    """The range of event time that a run computes of an asset: a partition or a range of them."""
    own = range_in(context.run.tags, context.asset_key.path[-1])
    if own is not None:
        first, last = (use_case.calendar.window(key) for key in own)
        return Window(first.start, last.end)
    window = context.partition_time_window
    zone = use_case.calendar.timezone
    return Window(window.start.astimezone(zone), window.end.astimezone(zone))


def looking_back(use_case: UseCase, duration: Duration) -> dg.TimeWindowPartitionMapping:
    """A window needs its own partition and those that `duration` before its start reaches."""
    return _offsets(-steps_before(use_case.calendar, duration), 0)


def looking_ahead(use_case: UseCase, duration: Duration) -> dg.TimeWindowPartitionMapping:
    """A window needs its own partition and those that `duration` after its end reaches."""
    return _offsets(0, steps_after(use_case.calendar, duration))


def trailing(use_case: UseCase, duration: Duration) -> dg.TimeWindowPartitionMapping:
    """A window needs the partitions of the range of `duration` that ends with it."""
    return _offsets(1 - max(1, steps_before(use_case.calendar, duration)), 0)


def before_cutoff(use_case: UseCase, duration: Duration) -> dg.TimeWindowPartitionMapping:
    """A cutoff needs the partitions of `duration` before it, and none from it on."""
    return _offsets(-steps_before(use_case.calendar, duration), -1)


def _offsets(start: int, end: int) -> dg.TimeWindowPartitionMapping:
    # At both ends of a history there is simply less to see.
    return dg.TimeWindowPartitionMapping(
        start_offset=start, end_offset=end, allow_nonexistent_upstream_partitions=True
    )
