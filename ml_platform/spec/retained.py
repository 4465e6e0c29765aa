"""What is wrong with what a use case declares of how long rows and snapshots are kept."""

from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.retention import DAY_SECONDS
from ml_platform.spec.tables import MONITORING
from ml_platform.spec.use_case import (
    EXPLANATIONS,
    LIVE_REPORTS,
    REFUSALS,
    REQUESTS,
    SEGMENT_REPORTS,
    UseCase,
    published_table,
)
from ml_platform.spec.values import unknown

LOGS = (REQUESTS, REFUSALS)


def tables_with_rows_to_drop(case: UseCase) -> tuple[str, ...]:
    """Tables that no training set and nothing else that lasts is made from.

    Of requests only those rows are dropped that labels are not made from.
    """
    live = (*LIVE_REPORTS, REQUESTS, REFUSALS) if case.serving.log is not None else ()
    return ("predictions", *MONITORING, *live)


def tables_that_name_snapshots(case: UseCase) -> tuple[str, ...]:
    """Tables whose rows name the snapshots that they were made from."""
    published = map(published_table, case.publish)
    dropped = (each for each in tables_with_rows_to_drop(case) if each not in LOGS)
    return (*dropped, *SEGMENT_REPORTS, EXPLANATIONS, *published)


def check_retention(case: UseCase, mistakes: Mistakes) -> None:
    """Tables that can be kept for a while only, for long enough."""
    for table, declared in case.retention.items():
        path = ("retention", table)
        known = dict.fromkeys((*tables_with_rows_to_drop(case), *tables_that_name_snapshots(case)))
        if table not in known:
            mistakes.add(path, unknown("table to be kept for a while", table, known))
            continue
        if declared.rows is None and declared.snapshots is None:
            mistakes.add(path, "says nothing; give `rows`, `snapshots` or both a length")
        if declared.snapshots is not None and table in LOGS:
            problem = f"rows of '{table}' name no snapshots; give `rows` alone"
            mistakes.add((*path, "snapshots"), problem)
        elif declared.snapshots is not None and declared.snapshots.seconds < DAY_SECONDS:
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
        **({"serving.review.within": case.serving.review.within} if case.serving.review else {}),
    }
    if rows.seconds < sum(length.seconds for length in reach.values()):
        needed = " and ".join(f"{name} ({length})" for name, length in reach.items())
        problem = f"'{rows}' is shorter than {needed} together, within which rows are read and"
        mistakes.add(path, f"{problem} computed again; lengthen it")
