"""Conditions of tables: partitions that are late, rows that broke their contract."""

from collections.abc import Sequence

from ml_platform.alerts.condition import Condition, Findings, asset_url, clock, counted
from ml_platform.alerts.freshness import Freshness, due_at
from ml_platform.monitoring.quarantined import Quarantined, read_quarantine
from ml_platform.sources.listing import landing_glob
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

MOST_REASONS = 3


def find_late(lake: Lake, use_case: UseCase, tables: Sequence[Freshness]) -> Findings:
    """Those of a use case's tables of which a partition lacks that is due."""
    return Findings(
        tuple(_late(lake, use_case, table) for table in tables if table.late),
        {
            f"freshness/{table.table}": (
                f"{table.table} has come to partition {use_case.calendar.key(table.newest)}."
            )
            for table in tables
            if table.newest and not table.late
        },
    )


def find_quarantine(lake: Lake, use_case: UseCase) -> Findings:
    """Partitions of sources of which too large a share broke its contract."""
    watched = use_case.monitoring.quarantine
    limit = watched.share
    partitions = read_quarantine(lake, use_case)
    above = [p for p in partitions if watched.is_too_much(p.rows, p.landed)]
    return Findings(
        tuple(_quarantined(lake, use_case, p, limit) for p in above),
        {
            _subject(use_case, p): (
                f"{p.rows} of {p.landed} rows break their contract: {p.share:.1%}, "
                f"the limit is {limit:.1%} from {counted(watched.min_rows, 'broken row')} on."
            )
            for p in partitions
            if p not in above
        },
    )


def _late(lake: Lake, use_case: UseCase, late: Freshness) -> Condition:
    calendar, zone = use_case.calendar, use_case.calendar.timezone
    first = late.late[0]
    due = due_at(use_case, late.table, first)
    lacking = counted(len(late.late), "partition")
    newest = f"the newest is {calendar.key(late.newest)}" if late.newest else "it has none yet"
    if late.table in use_case.sources:
        where = landing_glob(lake, use_case, late.table)
        done = f"nothing can be ingested until files land: look for {where}."
    else:
        command = f"ml-platform backfill {use_case.name} {late.table} --from {calendar.key(first)}"
        done = f"nothing by itself so far; `{command}` computes what lacks."
    return Condition(
        use_case=use_case.name,
        kind="freshness",
        subject=late.table,
        title=f"{late.table} of {use_case.name} is {lacking} late",
        what=(
            f"Partition {calendar.key(first)} of {late.table} was due by {clock(due, zone)}; "
            f"{newest}. {lacking} {'lacks' if len(late.late) == 1 else 'lack'} by now."
        ),
        since=due,
        since_text=clock(due, zone),
        done=done,
        link=asset_url(lake.settings, use_case, late.table),
    )


def _quarantined(lake: Lake, use_case: UseCase, found: Quarantined, limit: float) -> Condition:
    key = use_case.calendar.key(found.window)
    reasons = list(found.reasons.items())
    listed = "; ".join(f"{reason} ({count})" for reason, count in reasons[:MOST_REASONS])
    return Condition(
        use_case=use_case.name,
        kind="quarantine",
        subject=f"{found.source}/{key}",
        cause=f"Quarantine: {found.source} {found.cause}",
        partition=key,
        title=(f"Quarantine in {use_case.name}: {found.share:.1%} of {found.source} in {key}"),
        what=(
            f"{found.rows} of {found.landed} rows of {found.source} in partition {key} break "
            f"their contract: {found.share:.1%}, the limit is {limit:.1%}.\n"
            f"Why: {listed}{'; …' if len(reasons) > MOST_REASONS else ''}."
        ),
        since=found.window.start,
        since_text=f"partition {key}, {clock(found.window.start, use_case.calendar.timezone)}",
        done=(
            "the rows are kept in quarantine and are not used; land a corrected file, or correct "
            f"`sources.{found.source}`."
        ),
        link=asset_url(lake.settings, use_case, found.source, found.window),
    )


def _subject(use_case: UseCase, found: Quarantined) -> str:
    return f"quarantine/{found.source}/{use_case.calendar.key(found.window)}"
