"""Leaks of every kind, planted in the feature views of a use case: which does the check find?"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace

import duckdb

from ml_platform.errors import EmptyPartition, TableNotFound
from ml_platform.features.leak import check_written
from ml_platform.features.plants import AS_IT_IS, planted_queries
from ml_platform.features.views import compute_features, feature_view_table, windows_sql
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import QueryChecker, checking_database, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Commit, Lake, Written, replace_windows

COMMIT = Commit("planted", "")
FALSE_ALARM = "false alarm"
WINDOWS = 30
"""Windows that leaks are planted in, up to the newest one with examples."""


@dataclass(frozen=True)
class Plant:
    """A leak in one view, and what became of it."""

    view: str
    kind: str
    """What was planted; `nothing` is the view itself, in which nothing should be found."""
    rows: int
    """Rows that it changes; without any there is nothing to find."""
    problem: str | None
    """What the check said; None where it said nothing."""

    @property
    def outcome(self) -> str:
        """What became of it, in a word or two."""
        if self.kind == AS_IT_IS:
            return FALSE_ALARM if self.problem else "clean"
        if not self.rows:
            return "changes nothing"
        return "found" if self.problem else "missed"


def plant(lake: Lake, aside: Lake, use_case: UseCase) -> Iterator[Plant]:
    """Plant leaks in views over the newest rows of a lake, and check each.

    lake: only read; aside: an empty one, where everything is computed. Raises TableNotFound where
    no examples have been ingested.
    """
    stretch = _newest(lake, use_case)
    _copy_sources(lake, aside, use_case, stretch)
    with closing(checking_database()) as database:
        checker = QueryChecker(database, use_case.timezone)
        for name, source in use_case.sources.items():
            checker.create(name, source.columns)
        for view in use_case.features:
            yield from _of_view(aside, use_case, view, checker, stretch)


def _of_view(
    lake: Lake, use_case: UseCase, view: str, checker: QueryChecker, stretch: Window
) -> Iterator[Plant]:
    declared = use_case.features[view]
    clean: str | None = None
    for number, (kind, query) in enumerate(planted_queries(declared).items()):
        name = f"{view}_{number}"
        keys = {*declared.entity, "event_time"}
        columns = {c: t for c, t in checker.columns(query).items() if c not in keys}
        planted = declared.model_copy(
            update={
                "query": query, "features": columns, "reads": checker.reads(query),
                "sql": declared.sql or f"features/{view}.sql",
            }
        )  # fmt: skip
        case = use_case.model_copy(update={"features": {name: planted}})
        try:
            written = compute_features(lake, case, name, stretch, COMMIT)
        except EmptyPartition:
            continue
        rows = _changed(lake, case, name, clean)
        clean = clean or feature_view_table(case, name).sql
        yield Plant(view, kind, rows, _problem(lake, case, name, written))


def _problem(lake: Lake, use_case: UseCase, view: str, written: Written) -> str | None:
    reports = check_written(lake, use_case, view, written)
    return next((report.problem for report in reports if report.problem), None)


def _changed(lake: Lake, use_case: UseCase, view: str, clean: str | None) -> int:
    """Rows of a planted view that are not among those of the clean one."""
    table = feature_view_table(use_case, view)
    columns = ", ".join(quote(column) for column in table.columns)
    with lake.cursor(use_case.timezone) as cursor:
        try:
            counted = cursor.execute(
                f"SELECT count(*) FROM (SELECT {columns} FROM {table.sql} EXCEPT ALL "
                f"SELECT {columns} FROM {clean or table.sql})"
            ).fetchone()
        except duckdb.BinderException:
            # The clean one has no such column.
            counted = cursor.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
    return int(counted[0]) if counted else 0


def _newest(lake: Lake, use_case: UseCase) -> Window:
    """The newest windows of the examples' source that have rows, as a range."""
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, use_case.examples.source)
        moment = (
            f"CAST({quote(use_case.sources[use_case.examples.source].event_time)} AS TIMESTAMPTZ)"
        )
        row = cursor.execute(f"SELECT max({moment}), min({moment}) FROM {relation}").fetchone()
    if row is None or row[0] is None:
        raise TableNotFound(f"{use_case.name} has no examples; ingest some first")
    windows = list(
        use_case.calendar.windows(Window(row[1], use_case.calendar.window_at(row[0]).end))
    )
    return Window(windows[-WINDOWS:][0].start, windows[-1].end)


def _copy_sources(lake: Lake, aside: Lake, use_case: UseCase, stretch: Window) -> None:
    zone = use_case.calendar.timezone
    for source in dict.fromkeys(s for view in use_case.features.values() for s in view.reads):
        lookbacks = [v.lookback for v in use_case.features.values() if source in v.reads]
        # Twice as far, so that what reaches beyond its lookback finds rows there.
        starts = (back.before(back.before(stretch.start, zone), zone) for back in lookbacks)
        _copy(lake, aside, use_case, source, Window(min(starts, key=utc), stretch.end))


def _copy(lake: Lake, aside: Lake, use_case: UseCase, source: str, reach: Window) -> None:
    declared = source_table(use_case, source)
    whole = Window(use_case.calendar.window_at(reach.start).start, reach.end)
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, source)
        stored = {name for name, *_ in cursor.execute(f"DESCRIBE FROM {relation}").fetchall()}
        kept = {name: kind for name, kind in declared.columns.items() if name in stored}
        columns = ", ".join(quote(column) for column in kept)
        rows = cursor.execute(
            f"SELECT {columns} FROM {relation} WHERE {windows_sql(use_case, whole)}"
        ).to_arrow_table()
    with aside.cursor(use_case.timezone) as cursor:
        cursor.register("copied", rows)
        replace_windows(
            aside, cursor, replace(declared, columns=kept), "SELECT * FROM copied",
            time=use_case.sources[source].event_time, calendar=use_case.calendar,
            stretch=whole, commit=COMMIT,
        )  # fmt: skip
