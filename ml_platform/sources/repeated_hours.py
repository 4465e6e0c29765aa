"""Wall clock times that come twice, where clocks are set back."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from ml_platform.spec.queries import literal

YEARS = 30
"""So many years from its beginning on a use case's zone is looked through."""
# Dates and times that end without an offset or a zone.
WITHOUT_OFFSET = r"\s*\d+-\d+-\d+([ T]+\d+:\d+(:\d+)?([.,]\d+)?)?\s*"


def ambiguous_sql(typed: str, raw: str, zone: str, begins: datetime) -> str | None:
    """Whether a landed value is a wall clock time that comes twice in a zone, and says not which.

    None where that cannot be, since the zone never sets its clocks back.
    """
    inside = " OR ".join(
        f"({typed} >= TIMESTAMPTZ {literal(first)} AND {typed} < TIMESTAMPTZ {literal(end)})"
        for first, end in repeated(zone, begins.year)
    )
    # The few rows of those hours are picked first: looking at every text would cost.
    shown = f"CAST({raw} AS VARCHAR)"
    without = f"regexp_full_match({shown}, {literal(WITHOUT_OFFSET)})"
    return f"CASE WHEN {inside} THEN {without} ELSE false END" if inside else None


@lru_cache
def repeated(zone: str, year: int) -> tuple[tuple[str, str], ...]:
    """Instants, from a first to before an end, whose wall clock times come twice.

    Hours of `YEARS` years from the beginning of one on.
    """
    place = ZoneInfo(zone)
    found = []
    day = datetime(year, 1, 1, tzinfo=UTC)
    while day.year < year + YEARS:
        following = day + timedelta(days=1)
        back = _offset(day, place) - _offset(following, place)
        if back > timedelta():
            at = _changes(day, following, place)
            found.append(((at - back).isoformat(), (at + back).isoformat()))
        day = following
    return tuple(found)


def _changes(first: datetime, end: datetime, place: ZoneInfo) -> datetime:
    before = _offset(first, place)
    while end - first > timedelta(minutes=1):
        middle = first + timedelta(minutes=(end - first) // timedelta(minutes=2))
        first, end = (middle, end) if _offset(middle, place) == before else (first, middle)
    return end


def _offset(moment: datetime, place: ZoneInfo) -> timedelta:
    return moment.astimezone(place).utcoffset() or timedelta()
