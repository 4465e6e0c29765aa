"""What is wrong with what a use case declares of how long rows and snapshots are kept."""

from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.retention import DAY_SECONDS
from ml_platform.spec.tables import MONITORING
from ml_platform.spec.use_case import (
    EXPLANATIONS,
    LIVE_REPORTS,
    REQUESTS,
    SEGMENT_REPORTS,
    UseCase,
    published_table,
)
from ml_platform.spec.values import unknown


def tables_with_rows_to_drop(case: UseCase) -> tuple[str, ...]:
    """Tables that no training set and nothing else that lasts is made from."""
    live = LIVE_REPORTS if REQUESTS in case.sources else ()
    return ("predictions", *MONITORING, *live)


def tables_that_name_snapshots(case: UseCase) -> tuple[str, ...]:
    """Tables whose rows name the snapshots that they were made from."""
    published = map(published_table, case.publish)
    return (*tables_with_rows_to_drop(case), *SEGMENT_REPORTS, EXPLANATIONS, *published)


def check_retention(case: UseCase, mistakes: Mistakes) -> None:
    """Tables that can be kept for a while only, for long enough."""
    for table, declared in case.retention.items():
        path = ("retention", table)
        if table not in tables_that_name_snapshots(case):
            problem = unknown(
                "table to be kept for a while", table, tables_that_name_snapshots(case)
            )
            mistakes.add(path, problem)
            continue
        if declared.rows is None and declared.snapshots is None:
            mistakes.add(path, "says nothing; give `rows`, `snapshots` or both a length")
        if declared.snapshots is not None and declared.snapshots.seconds < DAY_SECONDS:
            problem = f"'{declared.snapshots}' is shorter than a day, and commands may take as long"
            mistakes.add((*path, "snapshots"), f"{problem}; take 1d or more")
        if declared.rows is not None:
            _check_rows(case, table, mistakes)


def _check_rows(case: UseCase, table: str, mistakes: Mistakes) -> None:
    path, rows = ("retention", table, "rows"), case.retention[table].rows
    assert rows is not None
    if table not in tables_with_rows_to_drop(case):
        problem = f"rows of '{table}' go with those that they are about; give `snapshots` alone"
        mistakes.add(path, problem)
    published = [name for name, each in case.publish.items() if each.features is None]
    if published and table == "predictions":
        problem = f"publish.{published[0]} publishes '{table}': computed again, a partition whose"
        mistakes.add(path, f"{problem} rows are gone would be emptied there; remove one of them")
    reach = {
        "schedules.horizon": case.schedules.horizon,
        "monitoring.window": case.monitoring.window,
        "label.horizon": case.label.horizon,
    }
    if rows.seconds < sum(length.seconds for length in reach.values()):
        needed = " and ".join(f"{name} ({length})" for name, length in reach.items())
        problem = f"'{rows}' is shorter than {needed} together, within which rows are read and"
        mistakes.add(path, f"{problem} computed again; lengthen it")
