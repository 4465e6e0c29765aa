"""One turn of the alerts: look, note what is new, bring it to the channels."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import duckdb

from ml_platform.alerts.channels import Channels
from ml_platform.alerts.condition import Findings, counted
from ml_platform.alerts.ledger import Delivery, Ledger, LedgerEntry
from ml_platform.alerts.plan import AlertPlan, Sending, failed, make_plan, put_off, sent
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake

MOST_SECONDS = 20
"""So long one turn hands messages to a channel; Apprise spaces them as the service wants it."""


@dataclass(frozen=True)
class Notified:
    """What one turn came to."""

    entries: tuple[LedgerEntry, ...] = ()
    """Conditions that began or ended, and events."""
    sent: int = 0
    """Messages that arrived, counted by channel."""
    problems: tuple[str, ...] = ()
    """Channels that could not be used, or did not take a message; it is tried again."""

    def __str__(self) -> str:
        words = {
            "raised": "condition",
            "cleared": "all-clear",
            "notified": "event",
            "past": "old event",
        }
        states: Counter[str] = Counter(entry.state for entry in self.entries)
        news = [counted(states[state], word) for state, word in words.items() if states[state]]
        if not news and not self.sent:
            return "nothing new"
        return f"{', '.join(news) or 'nothing new'}; sent: {counted(self.sent, 'message')}"


def notify(
    lake: Lake,
    use_case: UseCase,
    channels: Channels,
    find: Callable[[], Findings],
    now: datetime,
    commit: Commit,
) -> Notified:
    """Report what `find` finds to those who have not been notified.

    A condition is reported when it begins and when it ends, an event once; each to every channel
    whose tags fit. Whatever is wrong with a channel is said in the result and raises nothing.
    Processes that do this at once send nothing twice; one that dies while it sends may, once its
    lease ends. Raises what `find` raises, LakeError and CommitConflict.
    """
    ledger = Ledger(lake, use_case)
    usable = tuple(channels)

    def planned(cursor: duckdb.DuckDBPyConnection) -> AlertPlan:
        # The ledger first: what is found is then no older, and if another process writes in
        # between, the transaction starts again.
        state = ledger.read(cursor)
        zone = use_case.calendar.timezone
        return make_plan(use_case.name, zone, state, find(), usable, now)

    def noted(transaction: duckdb.DuckDBPyConnection) -> AlertPlan:
        plan = planned(transaction)
        ledger.append(transaction, plan.entries, plan.deliveries)
        return plan

    with lake.cursor() as cursor:
        # Nearly always there is nothing to write, and a look keeps no other writer waiting.
        if not planned(cursor):
            return Notified(problems=channels.problems)
        ledger.ensure(cursor, commit)
        plan = lake.transact(cursor, commit, noted)
        steps = _send(plan.sendings, now)
        if steps:
            lake.transact(cursor, commit, lambda t: ledger.append(t, deliveries=steps))
    names = {channel.id: channel.name for channel in usable}
    refused = sorted(f"{names[d.channel]}: {d.said}" for d in steps if d.step == "failed")
    arrived = sum(delivery.step == "sent" for delivery in steps)
    return Notified(plan.entries, arrived, (*channels.problems, *refused))


def _send(sendings: Sequence[Sending], now: datetime) -> list[Delivery]:
    ordered = sorted(sendings, key=lambda sending: sending.channel.id)
    queues = [list(same) for _, same in groupby(ordered, key=lambda sending: sending.channel.id)]
    if not queues:
        return []
    # A channel that lets everyone wait does not keep the others from being served.
    with ThreadPoolExecutor(max_workers=len(queues)) as pool:
        return [step for steps in pool.map(lambda q: _send_queue(q, now), queues) for step in steps]


def _send_queue(queue: Sequence[Sending], now: datetime) -> list[Delivery]:
    steps: list[Delivery] = []
    until = time.monotonic() + MOST_SECONDS
    for index, sending in enumerate(queue):
        if time.monotonic() > until:
            return [*steps, *(put_off(each.delivery, now, now) for each in queue[index:])]
        said = sending.channel.send(sending.message)
        if said is None:
            steps.append(sent(sending.delivery, now))
            continue
        failure = failed(sending.delivery, said, now)
        rest = [put_off(other.delivery, failure.next_at, now) for other in queue[index + 1 :]]
        return [*steps, failure, *rest]
    return steps
