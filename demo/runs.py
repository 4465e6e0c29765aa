"""Runs of the real Dagster definitions, in this process, recorded where the UI finds them."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from definitions import defs
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


class RunFailed(Exception):
    """A run of the walk failed; the message says which step and why."""


class Runs:
    """Materialises partitions of one use case, and leaves alone what is there already."""

    def __init__(self, use_case: UseCase, home: Path) -> None:
        self.use_case = use_case
        home.mkdir(parents=True, exist_ok=True)
        self.instance = dg.DagsterInstance.from_config(str(home))
        self._job = defs.resolve_implicit_global_asset_job_def()

    def materialize(self, tables: Sequence[str], stretch: Window, again: bool = False) -> bool:
        """Materialise the tables' partitions of a stretch in one run; False if nothing was missing."""
        keys = [self.use_case.calendar.key(w) for w in self.use_case.calendar.windows(stretch)]
        if not again:
            tables = [table for table in tables if self._missing(table, keys)]
        if not tables:
            return False
        result = self._job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey([self.use_case.name, table]) for table in tables],
            tags={RANGE_START: keys[0], RANGE_END: keys[-1]},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )
        if not result.success:
            raise RunFailed(_reason(result))
        return True

    def _missing(self, table: str, keys: Sequence[str]) -> bool:
        there = self.instance.get_materialized_partitions(dg.AssetKey([self.use_case.name, table]))
        return not there.issuperset(keys)


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            return f"{event.step_key}: {cause.message.strip() if cause else 'failed'}"
    return "the run failed before its first step"
