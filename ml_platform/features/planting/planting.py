"""Leaks of every kind, planted in the queries of a use case: which does the check find?"""

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime

from ml_platform.features.leak import check_leak, check_windows, check_written
from ml_platform.features.leak.subjects import LABELS
from ml_platform.features.planting.copies import COMMIT, Copy, copy_newest
from ml_platform.features.planting.corrections import plant_corrections
from ml_platform.features.planting.counts import (
    count_early,
    count_missing,
    count_other,
    count_planted,
)
from ml_platform.features.planting.label_plants import LabelPlant, planted_labels
from ml_platform.features.planting.outcomes import AS_IT_IS, Plant
from ml_platform.features.planting.view_plants import planted_queries
from ml_platform.features.views import (
    compute_features,
    compute_labels,
    feature_view_table,
    labels_table,
)
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import QueryChecker, checking_database, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake, Written
from ml_platform.storage.tables import naive_utc

BY_FORCE = 400
"""Moments of one window at which a leak is looked for that the check has not found."""


def plant(lake: Lake, aside: Lake, use_case: UseCase) -> Iterator[Plant]:
    """Plant leaks in queries over the newest rows of a lake, and check each; then correct rows.

    lake: only read; aside: an empty one, where everything is computed. Labels are left out while
    their sources have not landed. Raises TableNotFound where no examples have been ingested.
    """
    copied = copy_newest(lake, aside, use_case)
    with closing(checking_database()) as database:
        checker = QueryChecker(database, use_case.timezone)
        for name, source in use_case.sources.items():
            checker.create(name, source.columns)
        for view in use_case.features:
            yield from _of_view(copied, view, checker)
    if copied.has_labels:
        yield from _of_labels(copied)
    yield from plant_corrections(copied)


def _of_view(copied: Copy, view: str, checker: QueryChecker) -> Iterator[Plant]:
    use_case = copied.use_case
    declared = use_case.features[view]
    clean = feature_view_table(use_case, view)
    source = _latest(copied, declared.reads)
    kinds = planted_queries(declared, (source, use_case.sources[source]), copied.windows)
    for number, (kind, query) in enumerate(kinds.items()):
        # The view itself keeps its name: others are compared with its rows.
        name = view if kind == AS_IT_IS else f"{view}_{number}"
        keys = {*declared.entity, "event_time"}
        columns = {c: t for c, t in checker.columns(query).items() if c not in keys}
        planted = declared.model_copy(
            update={
                "query": query, "features": columns, "reads": checker.reads(query),
                "sql": declared.sql or f"features/{view}.sql",
            }
        )  # fmt: skip
        case = use_case.model_copy(update={"features": {name: planted}})
        written = compute_features(copied.lake, case, name, copied.range, COMMIT)
        if kind == AS_IT_IS and not any(written.rows.values()):
            yield Plant(view, kind, 0, None, is_empty=True)
            return
        with copied.lake.cursor(use_case.timezone) as cursor:
            leaking = count_planted(cursor, clean, feature_view_table(case, name))
        # What is the same as without the leak has been checked as that.
        is_worth_it = leaking or kind == AS_IT_IS
        problem = _problem(copied.lake, case, name, written) if is_worth_it else None
        was_known = bool(leaking and not problem) and not _by_force(
            copied, case, name, written, leaking.most_common(1)[0][0]
        )
        yield Plant(view, kind, leaking.total(), problem, was_known=was_known)


def _by_force(
    copied: Copy, use_case: UseCase, view: str, written: Written, start: datetime
) -> bool:
    """Whether a leak shows at any moment of the window with the most rows that it changes.

    start: of the window, in UTC without an offset.
    """
    window = next(w for w in written.rows if naive_utc(w.start) == start)
    report = check_leak(copied.lake, use_case, view, window, BY_FORCE, written.snapshot)
    return report.problem is not None


def _latest(copied: Copy, sources: Sequence[str]) -> str:
    """The source whose rows are known latest after their event times: they leak in most ways."""

    def delay(source: str) -> float:
        moment = f"CAST({quote(copied.use_case.sources[source].event_time)} AS TIMESTAMPTZ)"
        found = cursor.execute(
            f"SELECT max(epoch(known_at) - epoch({moment})) "
            f"FROM {source_table(copied.use_case, source).sql}"
        ).fetchone()
        return -math.inf if found is None or found[0] is None else float(found[0])

    with copied.lake.cursor(copied.use_case.timezone) as cursor:
        return max(sources, key=delay)


def _of_labels(copied: Copy) -> Iterator[Plant]:
    use_case, clean = copied.use_case, None
    for kind, planted in planted_labels(use_case).items():
        written = compute_labels(copied.lake, planted.use_case, copied.range, COMMIT)
        if kind == AS_IT_IS and not any(written.rows.values()):
            yield Plant(LABELS, kind, 0, None, is_empty=True)
            return
        clean = written.snapshot if clean is None else clean
        rows = _leaking_labels(copied, planted, clean, written.snapshot)
        # Which labels are early is an estimate: none of them may be counted.
        is_worth_it = rows or planted.is_early or kind == AS_IT_IS
        problem = _problem(copied.lake, planted.use_case, None, written) if is_worth_it else None
        yield Plant(LABELS, kind, rows, problem)


def _leaking_labels(copied: Copy, planted: LabelPlant, clean: int, snapshot: int) -> int:
    """Labels that leak at a snapshot; clean: the one at which none did."""
    lake, use_case = copied.lake, planted.use_case
    with lake.cursor(use_case.timezone) as cursor:
        if planted.is_early:
            return count_early(cursor, use_case)
        one, other = (
            lake.relation(cursor, use_case.name, LABELS, each) for each in (clean, snapshot)
        )
        if planted.is_short:
            return count_missing(cursor, lake, use_case, one, copied.windows, snapshot)
        return count_other(cursor, one, other, list(labels_table(use_case).columns)).total()


def _problem(lake: Lake, use_case: UseCase, view: str | None, written: Written) -> str | None:
    """What the check says after a run of one window, or else after one of all windows.

    Most leaks are in each window: of these one costs a third of all.
    """
    filled = [window for window, rows in written.rows.items() if rows]
    alone = filled[len(filled) // 2 :][:1]
    reports = check_windows(lake, use_case, view, alone, written.snapshot)
    if len(filled) > 1 and not any(report.problem for report in reports):
        reports = check_written(lake, use_case, view, written)
    return next((report.problem for report in reports if report.problem), None)
