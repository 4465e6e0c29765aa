"""Law 6 on live traffic: what the model was given online against what the join yields offline."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ml_platform.errors import TableNotFound
from ml_platform.features import inside_sql, join_sql, windows_sql
from ml_platform.spec.logged import kept_columns, readable_columns
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.use_case import REQUESTS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


@dataclass(frozen=True)
class Skew:
    """How the inputs of requests by key compare with those of the same examples offline."""

    compared: int
    """Rows that came by key and whose example has landed."""
    differing: Mapping[str, int] = field(default_factory=dict)
    """In how many of them a column has another value, to the bit; columns without any lack."""


def compare_online(lake: Lake, use_case: UseCase, window_range: Window) -> Skew:
    """Compare the logged inputs of a range with the point-in-time join of the same examples."""
    kept = readable_columns(use_case)
    logged = kept_columns(use_case)
    columns = [name for name in use_case.model_columns if name in kept]
    if not columns or not kept.issuperset(use_case.examples.entity):
        return Skew(0)
    keys = (*use_case.examples.entity, "event_time")
    on = " AND ".join(f"r.{quote(key)} = o.{quote(key)}" for key in keys)
    within = f"{inside_sql(window_range)} AND {windows_sql(use_case, window_range)}"
    where = f"{within} AND by_key AND mode = 'live'"
    # As text, since -0.0 equals 0.0; NaN is no value, offline as online.
    differs = ", ".join(
        f"count(*) FILTER (CAST(r.{c} AS VARCHAR) IS DISTINCT FROM "
        f"nullif(CAST(o.{c} AS VARCHAR), {'NULL' if kind == 'VARCHAR' else literal('nan')}))"
        for c, kind in ((quote(name), logged[name]) for name in columns)
    )
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        try:
            requests = lake.relation(cursor, use_case.name, REQUESTS, snapshot)
            joined = join_sql(cursor, lake, use_case, window_range, snapshot)
        except TableNotFound:
            return Skew(0)
        row = cursor.execute(
            f"""SELECT count(*), {differs} FROM (FROM {requests} WHERE {where}) r
            JOIN ({joined}) o ON {on}"""
        ).fetchone()
    assert row is not None
    counts = dict(zip(columns, row[1:], strict=True))
    return Skew(row[0], {name: count for name, count in counts.items() if count})
