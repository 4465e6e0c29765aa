"""Pages of what was done and what it cost: the audit, and the costs of a use case."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from ml_platform.access import Audit
from ml_platform.errors import PlatformError
from ml_platform.status import Cost, read_costs, summed, training_costs
from ml_platform.web.charts import Value, diagram
from ml_platform.web.site import PageNotFound, Site

NEWEST = 500
"""Rows of the audit on a page."""
DAYS = 30
"""Of costs, where no other number is asked for."""
MOST_DAYS = 366


def audit_page(site: Site, asked: Mapping[str, str]) -> dict[str, Any]:
    """Rows of the audit that fit all that is asked, the newest first.

    asked: `who`, `what`, `use_case`, and `since`, a day or a moment in ISO 8601, UTC where it names
    no zone; what is empty is not asked. Raises PageNotFound for a moment that is none.
    """
    given = {name: asked.get(name, "").strip() for name in ("who", "what", "use_case", "since")}
    since = None
    if given["since"]:
        try:
            since = datetime.fromisoformat(given["since"])
        except ValueError:
            raise PageNotFound(f"'{given['since']}' is not a moment in ISO 8601.") from None
        since = since if since.tzinfo else since.replace(tzinfo=UTC)
    rows = Audit(site.lake).rows(
        who=given["who"] or None, what=given["what"] or None,
        use_case=given["use_case"] or None, since=since,
    )  # fmt: skip
    return {
        "given": given,
        "count": len(rows),
        "rows": [
            {"row": row, "at": f"{row.at.astimezone(UTC):%Y-%m-%d %H:%M:%S}"}
            for row in reversed(rows[-NEWEST:])
        ],
        "names": list(site.loaded.use_cases),
    }


def costs_page(site: Site, name: str, days: str | None) -> dict[str, Any]:
    """What tables and models of a use case took, by day and in all."""
    case = site.use_case(name)
    if days is not None and not (days.isdecimal() and 1 <= int(days) <= MOST_DAYS):
        raise PageNotFound(f"days should be a whole number from 1 to {MOST_DAYS}, not '{days}'.")
    count = int(days or DAYS)
    since = datetime.now(UTC) - timedelta(days=count)
    found = list(read_costs(site.lake, case, since))
    problem = ""
    try:
        found += training_costs(site.registry, case, since)
    except PlatformError as error:
        problem = f"What training took is not known: {error}"
    totals = sorted(summed(found), key=lambda cost: -cost.seconds)
    return {
        "case": case,
        "days": count,
        "problem": problem,
        "totals": totals,
        "seconds": sum(cost.seconds for cost in found),
        "daily": diagram(_daily(found), floor=0.0, dates=_dates(found)),
    }


def _by_day(costs: list[Cost]) -> list[tuple[str, float]]:
    ordered = sorted((c.day.isoformat(), c.seconds) for c in costs if c.day)
    return [
        (day, sum(seconds for _, seconds in group))
        for day, group in groupby(ordered, lambda each: each[0])
    ]


def _daily(costs: list[Cost]) -> list[Value]:
    return [Value(seconds, f"{day}: {seconds:,.1f} s") for day, seconds in _by_day(costs)]


def _dates(costs: list[Cost]) -> list[tuple[int, str]]:
    days = [day for day, _ in _by_day(costs)]
    step = max(1, -(-len(days) // 6))
    return [(i, days[i]) for i in range(0, len(days), step)]
