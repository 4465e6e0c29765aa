"""The leak check: take away what was not known, compute again, compare.

A cut at moment t hides every source row that was not known at t. Whatever a view says about
moments up to t has to stay as it is; where it does not, the feature looked into the future.
"""

from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.errors import EmptyPartition, LeakFound
from ml_platform.features.views import Sight, instant, view_sql, windows_sql
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

# Sums of floats depend on their order, which a longer range may change.
RELATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True)
class LeakReport:
    """What the check compared; `problem` is None where nothing differed."""

    view: str
    window: Window
    cuts: tuple[datetime, ...]
    rows_compared: int
    problem: str | None

    def raise_if_found(self) -> None:
        """Raise LeakFound with the first row that differs."""
        if self.problem:
            raise LeakFound(self.problem)


def check_leak(
    lake: Lake, use_case: UseCase, view: str, window: Window, cuts: int = 4
) -> LeakReport:
    """Compare a stored window of a view with what it yields when the future is hidden.

    cuts: how many moments of the window are tried, spread over its rows, the last row included.
    Raises EmptyPartition where the window has no rows.
    """
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        relation = lake.relation(cursor, use_case.name, feature_table(view), snapshot)
        stored = f"(FROM {relation} WHERE {windows_sql(use_case, window)})"
        moments = _moments(cursor, stored, cuts)
        if not moments:
            raise EmptyPartition(f"{use_case.name}/{feature_table(view)} has no rows in {window}")
        compared = 0
        for moment in moments:
            rows, difference = _compare(
                lake, cursor, use_case, view, stored, Sight(window, snapshot, moment)
            )
            compared += rows
            if difference:
                # With everything shown the same rows must come back; else the range is to blame.
                _, unhidden = _compare(
                    lake, cursor, use_case, view, stored, Sight(window, snapshot), moment
                )
                problem = _explain(use_case, view, window, moment, difference, bool(unhidden))
                return LeakReport(view, window, moments, compared, problem)
        return LeakReport(view, window, moments, compared, None)


def _moments(cursor: duckdb.DuckDBPyConnection, stored: str, cuts: int) -> tuple[datetime, ...]:
    shares = [(i + 1) / cuts for i in range(cuts)]
    row = cursor.execute(f"SELECT quantile_disc(event_time, {shares}) FROM {stored}").fetchone()
    return tuple(dict.fromkeys(row[0])) if row and row[0] else ()


def _compare(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    stored: str,
    sight: Sight,
    until: datetime | None = None,
) -> tuple[int, str]:
    declared = use_case.features[view]
    moment = until or sight.known_by
    assert moment is not None
    again = view_sql(lake, cursor, use_case, view, sight)
    keys = ", ".join(quote(c) for c in (*declared.entity, "event_time"))
    same = " AND ".join(_same(quote(c), kind) for c, kind in declared.features.items())
    pairs = ", ".join(
        f"'{c.replace(chr(39), chr(39) * 2)}: stored ' || coalesce(s.{quote(c)}::VARCHAR, 'null') || ', without the "
        f"future ' || coalesce(a.{quote(c)}::VARCHAR, 'null')"
        for c in declared.features
    )
    differing = f"""
        SELECT {keys}, s.here IS NULL AS is_new, a.here IS NULL AS is_gone,
            list_filter([{pairs}], x -> x IS NOT NULL) AS texts,
            [{", ".join(f"NOT ({_same(quote(c), k)})" for c, k in declared.features.items())}] AS marks
        FROM (SELECT true AS here, * FROM {stored} WHERE event_time <= {instant(moment)}) s
        FULL JOIN (SELECT true AS here, * FROM ({again}) WHERE event_time <= {instant(moment)}) a
        USING ({keys})
        WHERE s.here IS NULL OR a.here IS NULL OR NOT ({same})
        ORDER BY event_time DESC LIMIT 1
    """
    row = cursor.execute(differing).fetchone()
    count = cursor.execute(
        f"SELECT count(*) FROM {stored} WHERE event_time <= {instant(moment)}"
    ).fetchone()
    compared = int(count[0]) if count else 0
    if row is None:
        return compared, ""
    width = len(declared.entity)
    entity = ", ".join(f"{c}={v}" for c, v in zip(declared.entity, row[:width], strict=True))
    at, is_new, is_gone, texts, marks = row[width:]
    where = f"{entity} at {at.isoformat()}"
    if is_new or is_gone:
        return compared, f"{where}: the row {'appears' if is_new else 'is gone'}"
    changed = "; ".join(text for text, mark in zip(texts, marks, strict=True) if mark)
    return compared, f"{where}: {changed}"


def _same(column: str, kind: str) -> str:
    stored, again = f"s.{column}", f"a.{column}"
    equal = f"{stored} IS NOT DISTINCT FROM {again}"
    if kind not in {"DOUBLE", "FLOAT"}:
        return f"({equal})"
    close = (
        f"abs({stored} - {again}) <= {RELATIVE_TOLERANCE} * greatest(abs({stored}), abs({again}))"
    )
    return f"({equal} OR coalesce({close}, false))"


def _explain(
    use_case: UseCase,
    view: str,
    window: Window,
    moment: datetime,
    difference: str,
    range_differs: bool,
) -> str:
    declared = use_case.features[view]
    file = use_case.folder / (declared.sql or f"features/{view}.sql")
    key = use_case.calendar.key(window)
    if range_differs:
        return (
            f"{file}: partition {key} computed alone differs from what is stored: {difference}. "
            f"Either its sources changed since, or the query looks further back than its lookback "
            f"of {declared.lookback}"
        )
    return (
        f"{file}: a leak in partition {key}: hiding what was not known at {moment.isoformat()} "
        f"changes {difference}. A feature may use only rows with known_at <= its event_time"
    )
