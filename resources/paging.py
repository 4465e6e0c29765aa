"""Pages of partitions that end where a calendar ends, in Dagster's web server.

The Plots of an asset show the newest 120 partitions of its definition. Dagster counts these back
from now, also where the definition ends earlier: of a history that has ended the UI asks for
partitions that never were, and its Plots are empty.
"""

from functools import cache, wraps
from typing import Any

from dagster import TimeWindowPartitionsDefinition


@cache
def end_pages_with_calendar() -> None:
    """Have the newest partitions of a definition be the last before its end, in this process.

    It replaces a method of Dagster's, which 1.13.29 still needs; when it can go,
    `tests/test_resources_paging.py` fails.
    """
    counted_from_now = TimeWindowPartitionsDefinition.get_paginated_partition_keys

    @wraps(counted_from_now)
    def paged(
        definition: TimeWindowPartitionsDefinition,
        context: Any,
        limit: int,
        ascending: bool,
        cursor: str | None = None,
    ) -> Any:
        end = definition.end
        if not ascending and end is not None and end < context.effective_dt:
            context = context.updated(end, None)
        return counted_from_now(definition, context, limit, ascending, cursor)

    TimeWindowPartitionsDefinition.get_paginated_partition_keys = paged  # type: ignore[assignment, method-assign]
