"""The point-in-time join: examples with the features that were known when they happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import pandas as pd

from ml_platform.features.known import features_sql, labels_sql, versions_if_asked
from ml_platform.features.views import inside_sql, instant, labels_table, windows_sql
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import is_numeric, is_time, quote
from ml_platform.spec.use_case import KNOWN_FROM, KNOWN_UNTIL, UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, require_calendar
from ml_platform.storage.tables import naive_utc, require_types

MARK = '"mark of the example"'
"""What distinguishes the examples of one query; a column that nobody else calls so."""


def assemble(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    *,
    labels_known_by: datetime | None = None,
) -> pd.DataFrame:
    """The examples of a range with their features, at one snapshot of the lake.

    Returns entity columns, `event_time`, then `use_case.model_columns`: numbers as float64 with
    NaN, everything else as text with None; ordered by event time and entity.
    With `labels_known_by` only examples whose label was known before that moment, and with it
    `label` and `label_known_at`.
    Raises TableNotFound where a table that is needed does not exist at the snapshot,
    CalendarChanged where rows lie in windows of another calendar.
    """
    sql = join_sql(cursor, lake, use_case, window_range, snapshot, labels_known_by=labels_known_by)
    # By way of Arrow, which builds a wide frame four times as fast as DuckDB's own conversion.
    frame: pd.DataFrame = cursor.execute(sql).to_arrow_table().to_pandas()
    return frame


def split_by_window(
    frame: pd.DataFrame, windows: list[Window]
) -> Iterator[tuple[Window, pd.DataFrame]]:
    """The rows of each window; the frame is ordered by `event_time`, the windows by start."""
    times = frame["event_time"].dt.tz_convert(None).to_numpy("datetime64[us]")
    starts, ends = (
        np.array([naive_utc(bound) for bound in bounds], "datetime64[us]")
        for bounds in ([w.start for w in windows], [w.end for w in windows])
    )
    places = zip(times.searchsorted(starts), times.searchsorted(ends), strict=True)
    for window, (first, last) in zip(windows, places, strict=True):
        yield window, frame.iloc[first:last]


def join_sql(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
    *,
    labels_known_by: datetime | None = None,
    mark: str = "uuid()",
) -> str:
    """The query behind `assemble`.

    mark: what distinguishes the examples. Numbering them would take a single thread.
    """
    require_calendar(cursor, use_case.name, use_case.calendar, snapshot)
    entity = [quote(column) for column in use_case.examples.entity]
    selected = [f"e.{column}" for column in entity] + ["e.event_time"]
    selected += [
        as_model_input(f"e.{quote(c)}", t, c) for c, t in use_case.examples.request.items()
    ]
    known = KnownVersions(lake, cursor, use_case, snapshot)
    found = _joined(known, _examples_sql(known, window_range), window_range, mark)
    joins = [*found.joins]
    selected += found.selected
    if labels_known_by is not None:
        # Labels of another task would be taken for numbers, or numbers for classes.
        require_types(cursor, labels_table(use_case))
        where = windows_sql(use_case, window_range)
        labels = labels_sql(known, where, labels_known_by)
        on = " AND ".join(f"e.{c} = l.{c}" for c in (*entity, "event_time"))
        joins.append(
            f"JOIN (FROM {labels} WHERE {where} "
            f"AND known_at < {instant(labels_known_by)} AND label IS NOT NULL) l ON {on}"
        )
        selected += ["l.label", "l.known_at AS label_known_at"]
    order = ", ".join(f"e.{c}" for c in ("event_time", *entity))
    return (
        f"WITH {', '.join(found.named)} SELECT {', '.join(selected)} FROM e {' '.join(joins)} "
        f"ORDER BY {order}"
    )


def spine_sql(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    spine: str,
    window_range: Window,
    snapshot: int,
    *,
    mark: str,
    at: datetime | None = None,
) -> str:
    """The query that joins rows of a relation with the features of `use_case.model_views`.

    spine: SQL that yields `event_time`, within the range, and the keys of the views; mark: a
    column of it that distinguishes its rows, and that the result is ordered by.
    at: join what was known at this moment, instead of at each row's own event time.
    """
    require_calendar(cursor, use_case.name, use_case.calendar, snapshot)
    known = KnownVersions(lake, cursor, use_case, snapshot)
    found = _joined(known, spine, window_range, mark, at)
    return (
        f"WITH {', '.join(found.named)} SELECT {', '.join(found.selected)} "
        f"FROM e {' '.join(found.joins)} ORDER BY e.{MARK}"
    )


@dataclass(frozen=True)
class _Joined:
    """Parts of a query that joins features to rows: `e`, and what is matched to it by view."""

    named: Sequence[str]
    """Common table expressions."""
    joins: Sequence[str]
    selected: Sequence[str]


def _joined(
    known: KnownVersions,
    examples: str,
    window_range: Window,
    mark: str,
    at: datetime | None = None,
) -> _Joined:
    named = [f"e AS MATERIALIZED (SELECT *, {mark} AS {MARK} FROM ({examples}))"]
    joins, selected = [], []
    for index, (view, declared) in enumerate(known.use_case.model_views.items()):
        # An ASOF join sorts all the columns that it carries, so each one carries keys only.
        alias = f"f{index}"
        named.append(f"{alias} AS ({_matched_sql(known, view, window_range, at)})")
        joins.append(f"LEFT JOIN {alias} ON e.{MARK} = {alias}.{MARK}")
        selected += [
            as_model_input(f"{alias}.{quote(c)}", t, f"{view}__{c}")
            for c, t in declared.features.items()
        ]
    return _Joined(named, joins, selected)


def examples_sql(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    window_range: Window,
    snapshot: int,
) -> str:
    """The examples of a range: entity, event time, join keys and request columns."""
    return _examples_sql(KnownVersions(lake, cursor, use_case, snapshot), window_range)


def _examples_sql(known: KnownVersions, window_range: Window) -> str:
    use_case = known.use_case
    declared = use_case.examples
    source = use_case.sources[declared.source]
    where = windows_sql(use_case, window_range)
    # Each in the version that was known at its own time.
    at = f"CAST({quote(source.event_time)} AS TIMESTAMPTZ)" if use_case.is_as_known else None
    relation = known.source_sql(declared.source, where, at)
    return (
        f"SELECT {example_items(use_case)} FROM {relation} "
        f"WHERE {inside_sql(window_range, source.event_time)} AND {where}"
    )


def example_items(use_case: UseCase) -> str:
    """What `examples_sql` selects of a row of the examples' source."""
    declared = use_case.examples
    source = use_case.sources[declared.source]
    named = {*declared.entity, *join_keys(use_case)} - declared.request.keys()
    plain = [quote(c) for c in source.columns if c in named]
    return ", ".join((f"{quote(source.event_time)} AS event_time", *plain, *declared.columns))


def join_keys(use_case: UseCase) -> tuple[str, ...]:
    """Columns of examples by which features are joined to them."""
    views = use_case.model_views.values()
    return tuple(dict.fromkeys(column for view in views for column in view.entity))


def _matched_sql(
    known: KnownVersions, view: str, window_range: Window, at: datetime | None = None
) -> str:
    """For each row of `e` that has one, the features of a view that were known and fresh then.

    at: known at this moment instead, and from no later event time.
    """
    use_case, table = known.use_case, feature_table(view)
    declared = use_case.features[view]
    start = declared.ttl.before(window_range.start, use_case.calendar.timezone)
    relation = known.lake.relation(known.cursor, use_case.name, table, known.snapshot)
    where = windows_sql(use_case, Window(start, window_range.end))
    rows = f"(FROM {relation} WHERE {where})"
    keys = [quote(column) for column in declared.entity]
    on = " AND ".join(f"e.{key} = f.{key}" for key in keys)
    features = ", ".join(f"f.{quote(column)}" for column in declared.features)
    fresh = use_case.expiry(view).fresh_sql("e.event_time", "f.event_time")
    versions = versions_if_asked(known, table, where)
    by = ", ".join((*keys, "event_time"))

    def joined(selected: str, how: str, rows: str) -> str:
        # ASOF needs '>=': what happens at the same instant counts as known.
        return (
            f"SELECT {selected} FROM (SELECT {MARK}, event_time, {', '.join(keys)} FROM e) e "
            f"{how} JOIN {rows} f ON {on} AND e.event_time >= f.event_time WHERE {fresh}"
        )

    selected = f"e.{MARK}, {features}"
    if at is not None:
        then = f"(FROM {features_sql(known, view, where, at)} WHERE {where}"
        return joined(selected, "ASOF", f"{then} AND event_time <= {instant(at)})")
    if versions is None:
        return joined(selected, "ASOF", rows)
    own = ", ".join((by, *(quote(column) for column in declared.features)))
    others = f"(SELECT {own} FROM {rows} ANTI JOIN {versions} USING ({by}))"
    candidates = (
        f"(SELECT {own}, false AS __corrected FROM {others} "
        f"UNION ALL BY NAME SELECT DISTINCT {by}, true AS __corrected FROM {versions})"
    )
    all_versions = f"SELECT {own}, {KNOWN_FROM}, {KNOWN_UNTIL} FROM {versions}"
    # Where the latest row is one that was corrected, what was known of it decides, and where it
    # was not there then the row before it.
    return f"""{joined(selected, "ASOF", candidates)} AND NOT f.__corrected
        UNION ALL
        ({joined(selected, "", f"(SELECT {own} FROM {others} UNION ALL BY NAME {all_versions})")}
            AND e.{MARK} IN ({joined(f"e.{MARK}", "ASOF", candidates)} AND f.__corrected)
            AND (f.{KNOWN_FROM} IS NULL OR f.{KNOWN_FROM} <= e.event_time)
            AND (f.{KNOWN_UNTIL} IS NULL OR f.{KNOWN_UNTIL} > e.event_time)
        QUALIFY row_number() OVER (PARTITION BY e.{MARK} ORDER BY f.event_time DESC) = 1)"""


def as_model_input(expression: str, kind: str, name: str) -> str:
    """A select item: a value as estimators are given it, a number as DOUBLE, all else as text."""
    if is_time(kind):
        expression = f"epoch({expression})"
    target = "DOUBLE" if is_numeric(kind) else "VARCHAR"
    if kind != target:
        expression = f"CAST({expression} AS {target})"
    return f"{expression} AS {quote(name)}"
