"""What to note and what to send next: a function of the ledger and of what there is to report."""

import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import TypeVar
from zoneinfo import ZoneInfo

from ml_platform.alerts.channels import Channel, Message
from ml_platform.alerts.condition import Condition, Findings, clock
from ml_platform.alerts.ledger import Delivery, LedgerEntry, LedgerState
from ml_platform.alerts.message import MOST_APART, write_message

Notified = TypeVar("Notified", Condition, LedgerEntry)

LEASE = timedelta(minutes=2)
"""So long nobody else sends what one process is about to send; longer than a channel may take."""
FIRST_RETRY = timedelta(minutes=1)
LONGEST_RETRY = timedelta(hours=1)
EXPIRES_AFTER = timedelta(hours=24)
LATEST_NEWS = timedelta(days=7)
"""An event that is older when it is first seen is history, not news."""


@dataclass(frozen=True)
class Sending:
    """A message that this process has claimed to send to a channel."""

    delivery: Delivery
    channel: Channel
    message: Message


@dataclass(frozen=True)
class AlertPlan:
    """Rows to append to the ledger, and what to send once they are there."""

    entries: tuple[LedgerEntry, ...]
    deliveries: tuple[Delivery, ...]
    sendings: tuple[Sending, ...]

    def __bool__(self) -> bool:
        return bool(self.entries or self.deliveries)


def make_plan(
    use_case: str,
    zone: ZoneInfo,
    state: LedgerState,
    found: Findings,
    channels: Sequence[Channel],
    now: datetime,
) -> AlertPlan:
    """Begin and end conditions, note events, claim what is due to be sent."""
    entries = tuple(_entries(zone, state, found, now))
    # What began while no channel was there is reported once there is one.
    unheard = [
        entry
        for entry in state.open.values()
        if entry.message not in state.deliveries and entry.key in {c.key for c in found.conditions}
    ]
    notified = [*unheard, *(entry for entry in entries if entry.state != "past")]
    by_message = {**state.entries, **_by_message(notified)}
    messages = {name: write_message(use_case, rows) for name, rows in by_message.items()}
    begun = [
        Delivery(name, channel.id, "due", 0, 0, now, now, now, "")
        for name in _by_message(notified)
        for channel in channels
        if channel.wants(messages[name])
    ]
    expired = [d for d in state.pending if d.first_at + EXPIRES_AFTER <= now]
    waiting = [d for d in state.pending if d not in expired] + begun
    known = {channel.id: channel for channel in channels}
    claimed = {
        (d.message, d.channel): replace(
            d, step="claimed", count=d.count + 1, taken_at=now, next_at=now + LEASE
        )
        for d in waiting
        if d.channel in known and d.next_at <= now and not _comes_later(d, waiting, by_message)
    }
    return AlertPlan(
        entries,
        (
            *(replace(d, step="expired", count=d.count + 1, taken_at=now) for d in expired),
            *(d for d in begun if (d.message, d.channel) not in claimed),
            *claimed.values(),
        ),
        tuple(
            Sending(d, known[d.channel], messages[d.message])
            # What has failed least comes first: a message that a channel never takes cannot keep
            # the others from it.
            for d in sorted(claimed.values(), key=lambda d: (d.attempts, d.first_at))
        ),
    )


def sent(delivery: Delivery, now: datetime) -> Delivery:
    """The step after a message has arrived."""
    return replace(delivery, step="sent", count=delivery.count + 1, taken_at=now, said="")


def failed(delivery: Delivery, said: str, now: datetime) -> Delivery:
    """The step after a message did not arrive: it is tried again, less and less often."""
    wait = min(FIRST_RETRY * 2**delivery.attempts, LONGEST_RETRY)
    return replace(
        delivery,
        step="failed",
        count=delivery.count + 1,
        attempts=delivery.attempts + 1,
        taken_at=now,
        next_at=now + wait,
        said=said,
    )


def put_off(delivery: Delivery, until: datetime, now: datetime) -> Delivery:
    """The step after a channel was found dead before this message's turn came."""
    return replace(delivery, step="due", count=delivery.count + 1, taken_at=now, next_at=until)


def _entries(
    zone: ZoneInfo, state: LedgerState, found: Findings, now: datetime
) -> Iterator[LedgerEntry]:
    lasting = {c.key: c for c in found.conditions if c.lasts}
    raised = [c for key, c in lasting.items() if key not in state.open]
    events = [c for c in found.conditions if not c.lasts and c.key not in state.notified]
    news = [c for c in events if c.since > now - LATEST_NEWS]
    past = [c for c in events if c not in news]
    # A partition that cannot be judged any more is no recovery.
    over = [
        entry
        for key, entry in state.open.items()
        if key not in lasting and found.judged.get(key, entry.since) >= entry.since
    ]
    number = state.last_number
    for group in _grouped([*raised, *news]):
        message = _new_id()
        for condition in group:
            number += 1
            yield _entry(number, message, condition, now)
    for ended in _grouped(over):
        message = _new_id()
        for entry in ended:
            number += 1
            yield _cleared(number, message, entry, found.notes.get(entry.key, ""), zone, now)
    for condition in past:
        number += 1
        yield replace(_entry(number, "", condition, now), state="past")


def _entry(number: int, message: str, condition: Condition, now: datetime) -> LedgerEntry:
    return LedgerEntry(
        number=number,
        message=message,
        key=condition.key,
        kind=condition.kind,
        severity=condition.severity,
        state="raised" if condition.lasts else "notified",
        title=condition.title,
        body=condition.body,
        link=condition.link,
        since=condition.since,
        seen_at=now,
    )


def _cleared(
    number: int, message: str, begun: LedgerEntry, note: str, zone: ZoneInfo, now: datetime
) -> LedgerEntry:
    lasted = f"Noted at {clock(begun.seen_at, zone)}, over at {clock(now, zone)}."
    return replace(
        begun,
        number=number,
        message=message,
        state="cleared",
        title=f"All clear: {begun.title}",
        body=f"{note}\n{lasted}".strip(),
        seen_at=now,
    )


def _grouped(items: Iterable[Notified]) -> Iterator[list[Notified]]:
    ordered = sorted(items, key=lambda item: item.kind)
    for _, same in groupby(ordered, key=lambda item: item.kind):
        group = list(same)
        if len(group) > MOST_APART:
            yield group
        else:
            yield from ([item] for item in group)


def _by_message(entries: Iterable[LedgerEntry]) -> dict[str, tuple[LedgerEntry, ...]]:
    found: dict[str, tuple[LedgerEntry, ...]] = {}
    for entry in entries:
        found[entry.message] = (*found.get(entry.message, ()), entry)
    return found


def _comes_later(
    delivery: Delivery,
    waiting: Sequence[Delivery],
    entries: dict[str, tuple[LedgerEntry, ...]],
) -> bool:
    """Whether something about the same condition is still on its way to the same channel."""
    keys = {entry.key for entry in entries[delivery.message]}
    return any(
        other.channel == delivery.channel
        and other.message != delivery.message
        and entries[other.message][0].number < entries[delivery.message][0].number
        and keys & {entry.key for entry in entries[other.message]}
        for other in waiting
    )


def _new_id() -> str:
    return uuid.uuid4().hex[:12]
