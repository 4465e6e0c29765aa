"""How use cases are, for people and for programs."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ml_platform.cli.printing import console, moment_in

if TYPE_CHECKING:
    from ml_platform.alerts import Channel, Channels
    from ml_platform.errors import PlatformError
    from ml_platform.monitoring.latest import Latest
    from ml_platform.orchestrator.ticks import Failing
    from ml_platform.spec.environments import Environment
    from ml_platform.spec.use_case import UseCase
    from ml_platform.status import AlertGroup, Dagster, Health, OpenAlert, Undelivered

Row = tuple[str, str]
GOOD, BAD, DIM = "green", "bold red", "dim"
MOST_ALERTS = 8
MOST_NAMED = 4


def print_json(
    found: "Sequence[Health]",
    dagster: "Dagster",
    broken: "Mapping[str, PlatformError]",
    use_cases: list[str],
) -> None:
    """The status of a deployment as one JSON document."""
    from ml_platform.status import status_document

    print(json.dumps(status_document(found, dagster, broken, use_cases), indent=2))


def show_health(
    found: "Sequence[Health]",
    dagster: "Dagster",
    broken: "Mapping[str, PlatformError]",
    use_cases: list[str],
) -> None:
    """A few lines for each use case; what is wrong stands out."""
    from ml_platform.status import first_problem, owner_of

    page = console()
    for health in found:
        case = health.use_case
        page.print(f"[bold]{case.name}[/] [{DIM}]{escape(case.description)}[/]", soft_wrap=True)
        _lines([*_rows(health), *_failing(dagster.of(case.name, use_cases), health)])
        page.print()
    for name, error in broken.items():
        page.print(f"[bold]{name}[/] [{BAD}]is broken[/]: {escape(first_problem(error))}",
                   soft_wrap=True)  # fmt: skip
    for each in dagster.failing:
        if owner_of(each, use_cases) is None:
            page.print(f"[{BAD}]{each.kind} {each.name} fails[/]: {escape(_first(each.error))}",
                       soft_wrap=True)  # fmt: skip
    show_unreachable(dagster)
    if not found and not broken:
        page.print("no use case is here; write one with `ml-platform new`")


def show_alerts(
    case: "UseCase", alerts: "Sequence[OpenAlert]", undelivered: "Sequence[Undelivered]"
) -> None:
    """Conditions that hold now, with all that is said of them, and messages on their way."""
    from ml_platform.alerts.condition import counted
    from ml_platform.status import grouped

    page = console()
    if not alerts:
        page.print(f"[bold]{case.name}[/] [{GOOD}]nothing is the matter[/]")
    for group in grouped(alerts):
        page.print(f"[{BAD}]{escape(group.title)}[/]", soft_wrap=True)
        condition = group.newest.condition
        if len(group.alerts) > 1:
            page.print(escape(f"  The newest: {condition.title}"), soft_wrap=True)
        for line in (
            *condition.body.split("\n"),
            f"Notified: {_notified(case, group)}",
            condition.link,
        ):
            page.print(escape(f"  {line}".replace("\n", "\n  ")), soft_wrap=True)
    for message in undelivered:
        tries = counted(message.attempts, "failure") if message.attempts else "not tried yet"
        page.print(
            escape(
                f"on its way: {message.title} ({tries}, next try {_moment(case, message.next_at)}"
                f"{': ' + message.said if message.said else ''})"
            ),
            soft_wrap=True,
        )


def show_unreachable(dagster: "Dagster") -> None:
    """That Dagster could not be asked, where it could not: failed runs may be missing then."""
    if dagster.problem:
        console().print(f"[{DIM}]Dagster: not reachable at {dagster.url}[/]")


def show_channels(channels: "Channels") -> None:
    """Which channels there are, without their addresses."""
    names = [_channel(channel) for channel in channels]
    console().print(
        f"[{DIM}]channels: {escape('; '.join(names) or 'none, see ML_PLATFORM_ALERTS')}[/]",
        soft_wrap=True,
    )
    for problem in channels.problems:
        console().print(f"[{BAD}]{escape(problem)}[/]", soft_wrap=True)


def show_tried(
    channels: "Channels",
    tried: "Sequence[tuple[Channel, str | None]]",
    use_cases: Sequence[str],
) -> None:
    """What each channel did with a test message, and tags that can mean nothing."""
    for channel, said in tried:
        verdict = f"[{GOOD}]took it[/]" if said is None else f"[{BAD}]failed[/]: {escape(said)}"
        console().print(f"{escape(_channel(channel))}: {verdict}", soft_wrap=True)
    for channel in channels:
        for tag in sorted(channel.use_cases - set(use_cases)):
            console().print(
                f"{escape(channel.name)}: its tag '{escape(tag)}' is not a use case, severity or "
                "kind"
            )


def _rows(health: "Health") -> Iterator[Row]:
    case = health.use_case
    key = case.calendar.key
    if (champion := health.champion) is None:
        yield "champion", f"[{DIM}]none yet[/]"
    else:
        cutoff = key(case.calendar.window_at(champion.cutoff))
        since = key(case.calendar.window_at(champion.effective_from))
        yield (
            "champion",
            (
                f"version {champion.version}, trained at cutoff {cutoff}, "
                f"{champion.age_days:.0f} days old, serves from {since}"
            ),
        )
        if champion.left_out:
            named = escape(", ".join(champion.left_out))
            yield "", f"[{BAD}]trained without {named}[/]: no row fitted on had a value"
        if champion.too_good:
            yield "", f"[{BAD}]too good to be true[/]: {escape(champion.too_good)}"
    if health.environment:
        yield "environment", _environment(health.environment)
    yield "drift", _drift(health)
    yield "performance", _performance(health)
    yield "quarantine", _quarantine(health)
    yield from (("tables" if not index else "", text) for index, text in enumerate(_tables(health)))
    if health.leak_checks:
        yield "leak checks", _leak_checks(health)
    for p in health.approvals:
        yield "approval", f"[{BAD}]version {p.version} waits[/] since {_moment(case, p.decided_at)}"
    for index, difference in enumerate(health.mirrors):
        hint = "" if difference.problem else f" [{DIM}]the next command on it repairs that[/]"
        yield "" if index else "mirrors", f"[{BAD}]{escape(str(difference))}[/]{hint}"
    yield from _alerts(health)


def _environment(environment: "Environment") -> str:
    if (state := environment.state) == "ready":
        return "its own"
    return f"[{BAD}]its own, {state}[/]: {environment.command}"


def _alerts(health: "Health") -> Iterator[Row]:
    from ml_platform.status import grouped

    groups = grouped(health.alerts)
    if not groups:
        yield "alerts", f"[{GOOD}]none[/]"
    for index, group in enumerate(groups[:MOST_ALERTS]):
        notified = f"notified: {_notified(health.use_case, group)}"
        yield "" if index else "alerts", f"[{BAD}]{escape(group.title)}[/] [{DIM}]{notified}[/]"
    if len(groups) > MOST_ALERTS:
        yield "", f"and {len(groups) - MOST_ALERTS} more: ml-platform alerts"


def _notified(case: "UseCase", group: "AlertGroup") -> str:
    """When people were notified of a group, and of how many of it they were not."""
    notified, left = group.notified, len(group.alerts) - len(group.notified)
    if not notified:
        return _notified_of(case, group.newest)
    when = _moment(case, notified[0])
    if notified[-1] != notified[0]:
        when += f" to {_moment(case, notified[-1])}"
    return f"{when}, {left} not yet" if left else when


def _leak_checks(health: "Health") -> str:
    """Of all tables together, and those in which leaks were found."""
    checks = health.leak_checks
    checked, partitions = sum(c.checked for c in checks), sum(c.partitions for c in checks)
    last = max(c.last_checked_at for c in checks)
    said = (
        f"{checked} of {partitions} partitions, at {sum(c.moments for c in checks)} moments, "
        f"last {_moment(health.use_case, last)}"
    )
    found = [f"{c.table} ({c.found})" for c in checks if c.found]
    return f"[{BAD}]leaks in {escape(', '.join(found))}[/]; {said}" if found else said


def _drift(health: "Health") -> str:
    case, latest = health.use_case, health.drift
    if latest is None:
        return f"[{DIM}]not judged yet[/]"
    since = _unjudged(case, latest)
    limit = case.monitoring.drift.share
    said = f"{len(latest.columns)} of {latest.rows} columns, {latest.value:.0%}, limit {limit:.0%}"
    return f"{_verdict(case, latest)}: {said}{since}"


def _performance(health: "Health") -> str:
    case, latest = health.use_case, health.performance
    if not case.monitoring.performance.bounds_by(case.model.metric):
        return f"[{DIM}]not judged: monitoring.performance sets no bounds[/]"
    if latest is None:
        return f"[{DIM}]not judged yet[/]"
    said = f"{latest.metric} {latest.value:.4f}, should be {latest.bounds}"
    return f"{_verdict(case, latest)}: {said}{_unjudged(case, latest)}"


def _unjudged(case: "UseCase", latest: "Latest") -> str:
    from ml_platform.monitoring.latest import named_unjudged

    named = named_unjudged(case, latest.unjudged)
    return f"; [{BAD}]{named}[/]" if named else ""


def _verdict(case: "UseCase", latest: "Latest") -> str:
    key = case.calendar.key
    if latest.passed:
        return f"[{GOOD}]ok[/] in {key(latest.window)}"
    row = latest.streak.windows
    since = f", {row} in a row since {key(latest.streak.since)}" if row > 1 else ""
    return f"[{BAD}]fails[/] in {key(latest.window)}{since}"


def _quarantine(health: "Health") -> str:
    case, above = health.use_case, health.too_much_quarantined
    limit = f"limit {case.monitoring.quarantine.share:.1%}"
    if not health.quarantine:
        return f"[{GOOD}]nothing[/], {limit}"
    worst = max(above or health.quarantine, key=lambda each: each.share)
    where = f"{worst.source} {worst.share:.1%} in {case.calendar.key(worst.window)}"
    if not above:
        return f"[{GOOD}]ok[/]: at most {where}, {limit}"
    return f"[{BAD}]too much[/] in {len(above)} partitions: at most {where}, {limit}"


def _tables(health: "Health") -> Iterator[str]:
    case = health.use_case
    alike: dict[tuple[str, int, bool], list[str]] = {}
    for table in health.tables:
        newest = case.calendar.key(table.newest) if table.newest else "no partition"
        alike.setdefault((newest, len(table.missing), bool(table.late)), []).append(table.table)
    for (newest, behind, late), tables in sorted(alike.items(), reverse=True):
        gap = f" [{BAD if late else DIM}]{behind} behind{', late' if late else ''}[/]"
        named = ", ".join(tables)
        if len(alike) == 1:
            named = f"all {len(tables)} tables"
        elif not behind and len(tables) > MOST_NAMED:
            named = f"the other {len(tables)} tables"
        yield f"{newest}{gap if behind else ''}: {named}"
    if health.is_over:
        yield f"[{DIM}]the history is over, nothing is late any more[/]"


def _failing(failing: "Sequence[Failing]", health: "Health") -> Iterator[Row]:
    for each in failing:
        at = _moment(health.use_case, each.failed_at)
        yield each.kind, f"[{BAD}]{each.name} fails[/] since {at}: {escape(_first(each.error))}"


def _channel(channel: "Channel") -> str:
    return f"{channel.name}, for {', '.join(sorted(channel.tags)) or 'everything'}"


def _notified_of(case: "UseCase", alert: "OpenAlert") -> str:
    """Whether anybody was notified, and when; noted alone is not sent."""
    if alert.notified_at is not None:
        return _moment(case, alert.notified_at)
    if alert.noted_at is None:
        return "not yet, no sensor has seen it"
    noted = f"noted {_moment(case, alert.noted_at)}"
    if alert.on_its_way:
        return f"not yet, {noted}, on its way to a channel"
    return f"nobody, {noted}, no channel has taken it"


def _moment(case: "UseCase", moment: datetime) -> str:
    return moment_in(case.calendar.timezone, moment)


def _first(text: str) -> str:
    return text.split("\n", maxsplit=1)[0]


def _lines(rows: Sequence[Row]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2))
    table.add_column(style=DIM)
    table.add_column(overflow="fold")
    for label, text in rows:
        table.add_row(f"  {label}", text)
    console().print(table)
