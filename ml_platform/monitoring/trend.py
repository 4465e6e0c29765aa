"""How drift or performance went over a year of reports, and a picture of it in few characters."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from ml_platform.errors import TableNotFound
from ml_platform.monitoring.drift import drift_table
from ml_platform.monitoring.performance import performance_table
from ml_platform.pictures import draw_line, in_markdown
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

YEAR = timedelta(days=366)
MOST_POINTS = 122


@dataclass(frozen=True)
class Trend:
    """One figure of consecutive reports, at most a year of them."""

    figure: str
    """What it is, in words."""
    first: str
    """Name of the first partition."""
    last: str
    values: tuple[float, ...]
    """By partition, in order of time; those without the figure lack."""
    limits: tuple[float, ...] = ()
    """Where a check fails."""


def drift_trend(lake: Lake, use_case: UseCase, *, live: bool = False) -> Trend | None:
    """The share of drifted columns up to the newest report; None without any that judged one."""
    return _trend(
        lake, use_case, drift_table(use_case, live=live).name, "share of columns drifted",
        "count(*) FILTER (drifted) / count(drifted)", "drifted IS NOT NULL",
        (use_case.monitoring.drift.share,),
    )  # fmt: skip


def performance_trend(lake: Lake, use_case: UseCase, *, live: bool = False) -> Trend | None:
    """The model's metric, by the labels known now; None where no report has a value of it."""
    metric = use_case.model.metric
    bounds = use_case.monitoring.performance.bounds_by(metric).get(metric)
    limits = () if bounds is None else (bounds.min, bounds.max)
    return _trend(
        lake, use_case, performance_table(use_case, live=live).name, metric,
        "any_value(value)",
        f"revision = 'current' AND value IS NOT NULL AND metric = {literal(metric)}",
        tuple(limit for limit in limits if limit is not None),
    )  # fmt: skip


def _trend(
    lake: Lake, use_case: UseCase, table: str, figure: str, value: str, where: str,
    limits: tuple[float, ...],
) -> Trend | None:  # fmt: skip
    with lake.cursor() as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, table)
        except TableNotFound:
            return None
        newest = cursor.execute(f"SELECT max({WINDOW_START}) FROM {relation}").fetchone()
        if newest is None or newest[0] is None:
            return None
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, {value} FROM {relation}
            WHERE {WINDOW_START} > ? AND {where} GROUP BY 1 ORDER BY 1""",
            [newest[0] - YEAR],
        ).fetchall()
    if not rows:
        return None
    first, last = (_key(use_case, rows[place][0]) for place in (0, -1))
    return Trend(figure, first, last, tuple(value for _, value in rows), limits)


def _key(use_case: UseCase, start: datetime) -> str:
    calendar = use_case.calendar
    return calendar.key(calendar.window_stored(start))


def describe_trend(trend: Trend, most_characters: int) -> str:
    """A line with its limits and what it shows, in Markdown that needs no other file.

    Where there are more partitions than fit, each point is the mean of some. Empty where less than
    two would be left.
    """
    size = ceil(len(trend.values) / MOST_POINTS)
    while len(points := _means(trend.values, size)) > 1:
        limits = " and ".join(f"{limit:g}" for limit in trend.limits)
        said = (
            f"{trend.figure}, {len(trend.values)} partitions from {trend.first} to {trend.last}"
            f"{f', each point the mean of {size}' if size > 1 else ''}"
            f"{f'; the red line is the limit, {limits}' if limits else ''}"
        )
        picture = in_markdown(draw_line(points, trend.limits), trend.figure)
        text = f"{picture}\n\n{said}"
        if len(text) < most_characters:
            return text
        size += 1
    return ""


def _means(values: Sequence[float], size: int) -> list[float]:
    parts = [values[start : start + size] for start in range(0, len(values), size)]
    return [sum(part) / len(part) for part in parts]
