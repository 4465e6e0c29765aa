"""Feature tables and labels: the use case's queries over what a window may see."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from operator import attrgetter
from typing import Protocol
from zoneinfo import ZoneInfo

import duckdb

from ml_platform.errors import Location, QueryFailed
from ml_platform.features.answers import read_answers
from ml_platform.features.versions import Computed, combined, replacements
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.duration import Duration
from ml_platform.spec.queries import complaint, line_shown, literal, quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import (
    Basis,
    Commit,
    Lake,
    Table,
    Written,
    compute_windows,
    replace_together,
)
from ml_platform.storage.data_files import DataFiles
from ml_platform.storage.tables import WINDOW_START, naive_utc

A_DAY = Duration(1, "d")
_seconds = attrgetter("seconds")


@dataclass(frozen=True)
class Sight:
    """What a query is shown of its sources: rows of `[start, end)`, of one snapshot.

    known_by: hide what was not known at this moment; None shows everything.
    as_of: show each row in the version known at this moment, or its first one; by default in the
    one known at `known_by`, where the use case's values are those as known, else what it is now.
    farther: show more than declared: twice the lookback before the range, or twice the horizon
    after it, and at least a day more.
    """

    range: Window
    snapshot: int
    known_by: datetime | None = None
    as_of: datetime | None = None
    farther: bool = False

    def start(self, lookback: Duration, zone: ZoneInfo) -> datetime:
        """From which event time on a view with this lookback is shown rows."""
        start = lookback.before(self.range.start, zone)
        return max(lookback, A_DAY, key=_seconds).before(start, zone) if self.farther else start

    def end(self, horizon: Duration, zone: ZoneInfo) -> datetime:
        """Before which event time labels with this horizon are shown rows."""
        end = horizon.after(self.range.end, zone)
        return max(horizon, A_DAY, key=_seconds).after(end, zone) if self.farther else end


def feature_view_table(use_case: UseCase, view: str) -> Table:
    """Where a feature view's rows are kept."""
    declared = use_case.features[view]
    entity = entity_types(use_case, declared.entity)
    return Table(
        schema=use_case.name,
        name=feature_table(view),
        columns={**entity, "event_time": "TIMESTAMPTZ", **declared.features},
        order=("event_time", *declared.entity),
        # Sums of floats depend on the order that threads add them up in.
        tolerance=1e-9,
    )


def labels_table(use_case: UseCase) -> Table:
    """Where labels are kept."""
    types = {"binary": "BOOLEAN", "multiclass": "VARCHAR", "regression": "DOUBLE"}
    entity = entity_types(use_case, use_case.examples.entity)
    return Table(
        schema=use_case.name,
        name="labels",
        columns={
            **entity,
            "event_time": "TIMESTAMPTZ",
            "label": types[use_case.label.task],
            "known_at": "TIMESTAMPTZ",
        },
        order=("event_time", *use_case.examples.entity),
    )


def entity_types(use_case: UseCase, entity: tuple[str, ...]) -> dict[str, str]:
    """DuckDB types of entity columns, as the examples' source declares them."""
    source = use_case.sources[use_case.examples.source]
    known = {**source.columns, **use_case.examples.request}
    return {column: known[column] for column in entity}


class Replacing(Protocol):
    """Computes a view from one snapshot and puts its rows in place, as `replace_view` does."""

    def __call__(
        self,
        lake: Lake,
        cursor: duckdb.DuckDBPyConnection,
        use_case: UseCase,
        view: str,
        window_range: Window,
        commit: Commit,
        basis: Basis,
    ) -> Written: ...


def compute_features(
    lake: Lake,
    use_case: UseCase,
    view: str,
    window_range: Window,
    commit: Commit,
    replacing: Replacing | None = None,
) -> Written:
    """Compute a feature view for the windows of a range, in one query and one transaction.

    replacing: what computes it, by default `replace_view`.
    Raises TableNotFound while a source that it reads is empty, QueryFailed where DuckDB refuses
    the query, DuplicateRows where it yields an entity twice at one event time.
    """
    table = feature_view_table(use_case, view)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> Written:
        replace_rows = replacing or replace_view
        return replace_rows(lake, cursor, use_case, view, window_range, commit, basis)

    return compute_windows(lake, use_case, table.name, window_range, commit, compute)


def replace_view(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    window_range: Window,
    commit: Commit,
    basis: Basis,
    files: DataFiles | None = None,
) -> Written:
    """What `compute_features` does once it knows from which snapshot on it reads.

    files: where the rows of the range are, should another engine have computed them.
    """
    table = feature_view_table(use_case, view)

    def query(part: Window, as_of: datetime | None) -> str:
        if files is not None and as_of is None:
            return files.query(table)
        return view_sql(lake, cursor, use_case, view, Sight(part, basis.snapshot, as_of=as_of))

    reach = partial(_looking_back, use_case, view)
    reads = use_case.features[view].reads
    computed = Computed(table, reads, reach, query, "event_time", files=files)
    return _replace(lake, cursor, use_case, computed, window_range, commit, basis)


def compute_labels(lake: Lake, use_case: UseCase, window_range: Window, commit: Commit) -> Written:
    """Compute the labels of a range's examples from what has landed so far, and what came back.

    Where both say something of an example, `label.feedback` says which holds. What came back of an
    example that has not landed is no label until it has.
    """
    table = labels_table(use_case)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> Written:
        def query(part: Window, as_of: datetime | None) -> str:
            sight = Sight(part, basis.snapshot, as_of=as_of)
            return own_labels_sql(lake, cursor, use_case, sight)

        where = f"{inside_sql(window_range)} AND {windows_sql(use_case, window_range)}"
        answers = read_answers(lake, cursor, use_case, where, basis.snapshot)
        reach = partial(_looking_ahead, use_case)
        computed = Computed(table, use_case.label.reads, reach, query, "known_at", answers)
        return _replace(lake, cursor, use_case, computed, window_range, commit, basis)

    return compute_windows(lake, use_case, table.name, window_range, commit, compute)


def own_labels_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    sight: Sight,
    relations: Mapping[str, str] | None = None,
) -> str:
    """The SELECT that yields the labels of the sight's range by `labels.sql` alone.

    relations: as for `view_sql`.
    """
    label = use_case.label
    end = sight.end(label.horizon, use_case.calendar.timezone)
    wider = replace(sight, range=Window(sight.range.start, end))
    shown = _sources_sql(lake, cursor, use_case, label.reads, wider, relations)
    return f"{shown} SELECT * FROM (\n{label.query}) WHERE {inside_sql(sight.range)}"


def view_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    sight: Sight,
    relations: Mapping[str, str] | None = None,
) -> str:
    """The SELECT that yields a view's rows with event times in the sight's range.

    relations: SQL that names copies of sources, `window_start` and `known_at` included; by default
    they are read from the lake.
    """
    declared = use_case.features[view]
    start = sight.start(declared.lookback, use_case.calendar.timezone)
    wider = replace(sight, range=Window(start, sight.range.end))
    shown = _sources_sql(lake, cursor, use_case, declared.reads, wider, relations)
    return f"{shown} SELECT * FROM (\n{declared.query}) WHERE {inside_sql(sight.range)}"


def _looking_back(use_case: UseCase, view: str, window_range: Window) -> Window:
    """The range of event time of the sources that a view sees of a range."""
    lookback = use_case.features[view].lookback
    return Window(lookback.before(window_range.start, use_case.calendar.timezone), window_range.end)


def _looking_ahead(use_case: UseCase, window_range: Window) -> Window:
    """The range of event time of the sources that labels of a range see."""
    end = use_case.label.horizon.after(window_range.end, use_case.calendar.timezone)
    return Window(window_range.start, end)


def _replace(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    computed: Computed,
    window_range: Window,
    commit: Commit,
    basis: Basis,
) -> Written:
    table = computed.table
    try:
        parts = replacements(lake, cursor, use_case, computed, window_range, basis.snapshot)
        return combined(
            replace_together(
                lake, cursor, parts,
                calendar=use_case.calendar, window_range=window_range, commit=commit, basis=basis,
            )
        )  # fmt: skip
    except (
        duckdb.ConversionException,
        duckdb.OutOfRangeException,
        duckdb.InvalidInputException,
        duckdb.BinderException,
    ) as error:
        raise _failed(use_case, table.name, window_range, error) from error


def _failed(
    use_case: UseCase, table: str, window_range: Window, error: duckdb.Error
) -> QueryFailed:
    view = next((name for name in use_case.features if feature_table(name) == table), None)
    file = use_case.view_file(view) if view else use_case.folder / use_case.label.sql
    query = use_case.features[view].query if view else use_case.label.query
    where = Location(file, line_shown(query, error))
    said = complaint(error, use_case.sources)
    return QueryFailed(f"{where}: {said} ({use_case.name}/{table} over {window_range})")


def _sources_sql(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    names: tuple[str, ...],
    sight: Sight,
    relations: Mapping[str, str] | None = None,
) -> str:
    # Common table expressions, not views: nothing is left behind on the connection, and the
    # query's own names still win over them.
    parts = []
    known = KnownVersions(lake, cursor, use_case, sight.snapshot)
    for name in names:
        source = use_case.sources[name]
        columns = ", ".join(quote(c) for c in dict.fromkeys((*source.columns, "known_at")))
        where = [inside_sql(sight.range, source.event_time), windows_sql(use_case, sight.range)]
        if sight.known_by is not None:
            where.append(f"known_at <= {instant(sight.known_by)}")
        relation = (relations or {}).get(name)
        if relation is None:
            windows = windows_sql(use_case, sight.range)
            at = sight.as_of or (sight.known_by if use_case.is_as_known else None)
            relation = known.source_sql(name, windows, instant(at) if at else None)
        parts.append(
            f"{quote(name)} AS (SELECT {columns} FROM {relation} WHERE {' AND '.join(where)})"
        )
    return f"WITH {', '.join(parts)}" if parts else ""


def inside_sql(window_range: Window, column: str = "event_time") -> str:
    """Predicate that keeps the rows whose time lies in a range."""
    name = quote(column)
    return f"{name} >= {instant(window_range.start)} AND {name} < {instant(window_range.end)}"


def windows_sql(use_case: UseCase, window_range: Window) -> str:
    """Predicate on `window_start` that keeps the files of a range."""
    # The partition column lets DuckLake skip files; the event time alone would open all of them.
    first = use_case.calendar.window_at(window_range.start).start
    return (
        f"{WINDOW_START} >= TIMESTAMP {literal(str(naive_utc(first)))} "
        f"AND {WINDOW_START} < TIMESTAMP {literal(str(naive_utc(window_range.end)))}"
    )


def since_sql(use_case: UseCase, moment: datetime) -> str:
    """Predicate on `window_start` that keeps the files from the window of a moment on."""
    first = use_case.calendar.window_at(moment).start
    return f"{WINDOW_START} >= TIMESTAMP {literal(str(naive_utc(first)))}"


def instant(moment: datetime) -> str:
    """A SQL literal of a moment, whatever the session's time zone."""
    return f"TIMESTAMPTZ {literal(moment.isoformat())}"
