"""One computation of one table, recorded in the lake together with what it read."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from ml_platform.backfill.staleness import Standing, judge
from ml_platform.errors import EmptyPartition, LabelsNotArrived, NoChampion, TableNotFound
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.computations import note
from ml_platform.storage.tables import naive_utc

NOTHING_TO_COMPUTE = (EmptyPartition, LabelsNotArrived, NoChampion, TableNotFound)


@contextmanager
def computing(
    lake: Lake,
    use_case: UseCase,
    table: str,
    window_range: Window,
    run_id: str,
    extra: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Commit]:
    """Yields the commit with which a range of a table is to be written.

    extra: what more the commit says, such as the parameters of the pipeline that it is of.

    Windows that the body leaves as they were, because they come out the same or empty, or because
    it raises that there is nothing to compute, are noted as computed. A failure is not noted.
    """
    with lake.cursor() as cursor:
        begun_at = lake.snapshot(cursor)
    begun = [begun_at]
    commit = Commit(
        run_id, code_version(use_case, table), f"{use_case.name}/{table}", extra,
        begins=begun.append, began=time.monotonic(),
    )  # fmt: skip
    try:
        yield commit
    except NOTHING_TO_COMPUTE as error:
        _settle(lake, use_case, table, window_range, commit, begun[-1], str(error))
        raise
    _settle(lake, use_case, table, window_range, commit, begun[-1], "it came out without rows")


def _settle(
    lake: Lake,
    use_case: UseCase,
    table: str,
    window_range: Window,
    commit: Commit,
    begun_at: int,
    reason: str,
) -> None:
    states = judge(lake, use_case, window_range, [table])[table]
    unsettled = {
        naive_utc(window.start): reason
        for window, state in states.items()
        # What changed while it was computed is not checked by noting that it was computed.
        if state.standing in {Standing.missing, Standing.stale} and state.inputs_at <= begun_at
    }
    if unsettled:
        with lake.cursor() as cursor:
            note(lake, cursor, use_case, table, begun_at, unsettled, commit)
