"""When the rows of a table happened: from when to when, how densely, at which moments."""

from dataclasses import dataclass
from datetime import date, datetime, timedelta

from ml_platform.spec.queries import quote
from ml_platform.spec.scaffold.paces import UNITS
from ml_platform.spec.scaffold.profile import Profile
from ml_platform.spec.windows import Cadence

ROWS_A_WINDOW = 50
ROWS_AT_ONE_MOMENT = 10
"""Rows of a window that are enough where all of them are of the moment at which it begins."""
FEWEST_WINDOWS = 12
MOST_STRAY_SHARE = 0.001
"""Of the rows may lie far before or after all others, and count as mistakes."""
LONGEST_GAP_SHARE = 0.25
"""Of the span of the others, from which on what lies beyond a gap is far from them."""
SHORTEST_GAP = timedelta(days=14)
NEARLY_ALL = 0.9
HOURS = "by_hour"
"""Table of the rows of each hour."""


@dataclass(frozen=True)
class TimeSpan:
    """First and last moment of the rows, in the time zone of the profile, strays left out."""

    first: datetime
    last: datetime
    early: tuple[int, date | None]
    """Rows far before the first, and the day of the earliest."""
    late: tuple[int, date | None]
    """Rows far after the last, and the day of the latest."""


@dataclass(frozen=True)
class Rhythm:
    """How densely rows lie in the windows of a cadence."""

    cadence: Cadence
    windows: int
    """From the first to the last row, empty ones included."""
    rows: int
    """Of the median window that has any."""


def find_span(profile: Profile, time: str) -> TimeSpan:
    """From when to when the rows happened, but for few that lie far away from all others."""
    moment = _moment(time)
    profile.keep(
        HOURS,
        f"SELECT date_trunc('hour', {moment}) AS hour, count(*) AS rows FROM whole "
        f"WHERE {quote(time)} IS NOT NULL GROUP BY 1",
    )
    days = [
        (date.fromisoformat(day), count)
        for day, count in profile.pairs(
            f"SELECT CAST(hour AS DATE)::VARCHAR, sum(rows)::BIGINT FROM {HOURS} "
            "GROUP BY 1 ORDER BY 1"
        )
    ]
    first = _after_strays(days, profile.rows)
    last = len(days) - 1 - _after_strays(days[::-1], profile.rows)
    first, last = (first, last) if first <= last else (0, len(days) - 1)
    low, high = days[first][0], days[last][0] + timedelta(days=1)
    texts = profile.texts(
        f"SELECT unnest([min({moment}), max({moment})]) FROM whole "
        f"WHERE {moment} >= DATE '{low}' AND {moment} < DATE '{high}'"
    )
    return TimeSpan(
        datetime.fromisoformat(texts[0]),
        datetime.fromisoformat(texts[1]),
        (sum(n for _, n in days[:first]), days[0][0] if first else None),
        (sum(n for _, n in days[last + 1 :]), days[-1][0] if last < len(days) - 1 else None),
    )


def _after_strays(days: list[tuple[date, int]], rows: int) -> int:
    """Index of the first day that few rows, if any, lie far before; days in either direction."""
    passed, start = 0, 0
    whole = abs(days[-1][0] - days[len(days) // 2][0])
    for index in range(1, len(days)):
        passed += days[index - 1][1]
        if passed > max(1, MOST_STRAY_SHARE * rows) or passed * 100 > rows:
            break
        gap = abs(days[index][0] - days[index - 1][0])
        if gap >= max(SHORTEST_GAP, LONGEST_GAP_SHARE * whole):
            start = index
    return start


def guess_rhythm(
    profile: Profile, said: Cadence | None, event_time: str, span: TimeSpan
) -> tuple[Rhythm, str]:
    """The shortest windows that hold enough rows, of which there are enough."""
    rhythms = {cadence: _rhythm(profile, cadence, span) for cadence in Cadence}
    if said is not None:
        return rhythms[said], "you said so"
    unit = "hours"
    if not profile.has_hours(event_time):
        del rhythms[Cadence.hourly]
        unit = "days"
    long_enough = [r for r in rhythms.values() if r.windows >= FEWEST_WINDOWS]
    if not long_enough:
        problem = f"from {span.first} to {span.last} there are less than {FEWEST_WINDOWS} {unit}"
        raise profile.refusal("--cadence", f"{problem}; more history is needed to learn from")
    for rhythm in long_enough:
        shown = f"{rhythm.windows} windows with a median of {rhythm.rows} rows"
        if rhythm.rows >= ROWS_A_WINDOW:
            return rhythm, f"the shortest windows with {ROWS_A_WINDOW} rows or more: {shown}"
        if rhythm.rows >= ROWS_AT_ONE_MOMENT and _comes_every(profile, rhythm, event_time):
            named = UNITS[rhythm.cadence]
            return (
                rhythm,
                f"the rows are of full {named}s, and nearly each {named} has some: {shown}",
            )
    best = long_enough[-1]
    why = f"no windows have {ROWS_A_WINDOW} rows, these are the longest of which there are"
    shown = f"{best.windows} windows with a median of {best.rows} rows"
    return best, f"{why} {FEWEST_WINDOWS}: {shown}"


def _comes_every(profile: Profile, rhythm: Rhythm, time: str) -> bool:
    """Whether rows are of the moments at which windows begin, and nearly each window has some."""
    unit = UNITS[rhythm.cadence]
    moment = _moment(time)
    exact, windows = profile.row(
        f"""SELECT count(*) FILTER ({moment} = date_trunc('{unit}', {moment})),
        count(DISTINCT date_trunc('{unit}', {moment})) FROM whole"""
    )
    return exact >= NEARLY_ALL * profile.rows and windows >= NEARLY_ALL * rhythm.windows


def _rhythm(profile: Profile, cadence: Cadence, span: TimeSpan) -> Rhythm:
    unit = UNITS[cadence]
    first = span.first.replace(minute=0, second=0, microsecond=0)
    windows, rows = profile.row(
        f"""SELECT date_diff('{unit}', min(start), max(start)) + 1, median(rows)::BIGINT FROM (
            SELECT date_trunc('{unit}', hour) AS start, sum(rows) AS rows FROM {HOURS}
            WHERE hour BETWEEN TIMESTAMP '{first}' AND TIMESTAMP '{span.last}' GROUP BY 1)"""
    )
    return Rhythm(cadence, windows, rows)


def _moment(time: str) -> str:
    return f"CAST({quote(time)} AS TIMESTAMPTZ)::TIMESTAMP"
