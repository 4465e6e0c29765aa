"""What has been reported, and where it has arrived: two tables that only grow.

`alerts` has a row for each condition that began or ended and for each event; rows that are sent
together share a message. `alert_deliveries` has a row for each step of bringing a message to a
channel. A step is taken in a transaction before anything is sent, so that of two processes that
are about to send the same only one does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb

from ml_platform.alerts.condition import Condition, Kind, Severity
from ml_platform.errors import TableNotFound
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table

State = Literal["raised", "cleared", "notified", "past"]
"""`past` is an event that was over long before it was seen: noted, not sent."""
Step = Literal["due", "claimed", "failed", "sent", "expired"]


@dataclass(frozen=True)
class LedgerEntry:
    """A condition that began or ended, or an event."""

    number: int
    """Counts the entries of a use case."""
    message: str
    key: str
    kind: Kind
    severity: Severity
    state: State
    title: str
    body: str
    link: str
    since: datetime
    seen_at: datetime
    """By the clock."""

    def condition(self, use_case: str) -> Condition:
        """What it is about, as it was noted."""
        what, _, rest = self.body.rpartition("\nDone: ")[0].rpartition("\nSince: ")
        return Condition(
            use_case=use_case,
            kind=self.kind,
            subject=self.key.partition("/")[2],
            title=self.title,
            what=what,
            since=self.since,
            since_text=rest,
            done=self.body.rpartition("\nDone: ")[2],
            link=self.link,
        )


@dataclass(frozen=True)
class Delivery:
    """How far one message has come on its way to one channel."""

    message: str
    channel: str
    step: Step
    count: int
    """Counts the steps of this delivery."""
    attempts: int
    """How often sending it has failed."""
    taken_at: datetime
    """When this step was taken."""
    next_at: datetime
    """Before this moment nobody else tries."""
    first_at: datetime
    """When the message came up."""
    said: str
    """Why the last attempt failed."""


@dataclass(frozen=True)
class LedgerState:
    """The ledger as one transaction sees it."""

    last_number: int
    open: Mapping[str, LedgerEntry]
    """By key, the entry that began each condition that lasts."""
    notified: frozenset[str]
    """Keys of events."""
    pending: tuple[Delivery, ...]
    """Deliveries that have not come to an end, the newest step of each."""
    entries: Mapping[str, tuple[LedgerEntry, ...]]
    """By message, the entries of pending deliveries."""
    deliveries: Mapping[str, tuple[Delivery, ...]] = field(default_factory=dict)
    """By message, how far it has come to each channel that it was ever addressed to."""


class Ledger:
    """The alerts of one use case."""

    def __init__(self, lake: Lake, use_case: UseCase) -> None:
        self.lake = lake
        self.use_case = use_case
        self.alerts = alerts_table(use_case)
        self.deliveries = deliveries_table(use_case)

    def ensure(self, cursor: duckdb.DuckDBPyConnection, commit: Commit) -> None:
        """Create the tables where they are not there yet."""
        for table in (self.alerts, self.deliveries):
            ensure_table(self.lake, cursor, table, commit, partitioned=False)

    def read(self, cursor: duckdb.DuckDBPyConnection) -> LedgerState:
        """The state now; in a transaction, as of its start."""
        try:
            for table in (self.alerts, self.deliveries):
                self.lake.relation(cursor, table.schema, table.name)
        except TableNotFound:
            return LedgerState(0, {}, frozenset(), (), {})
        lasting = self._entries(
            cursor,
            """WHERE state IN ('raised', 'cleared')
            QUALIFY number = max(number) OVER (PARTITION BY key)""",
        )
        rows = cursor.execute(
            f"SELECT key FROM {self.alerts.sql} WHERE state NOT IN ('raised', 'cleared')"
        )
        notified = frozenset(key for (key,) in rows.fetchall())
        counted = cursor.execute(f"SELECT coalesce(max(number), 0) FROM {self.alerts.sql}")
        (last,) = counted.fetchone() or (0,)
        latest = self.latest(cursor)
        addressed: dict[str, tuple[Delivery, ...]] = {}
        for delivery in latest:
            addressed[delivery.message] = (*addressed.get(delivery.message, ()), delivery)
        pending = tuple(each for each in latest if each.step not in {"sent", "expired"})
        messages = {delivery.message for delivery in pending}
        entries: dict[str, tuple[LedgerEntry, ...]] = {}
        if messages:
            for entry in self._entries(
                cursor, "WHERE message IN (SELECT unnest($1::VARCHAR[]))", [sorted(messages)]
            ):
                entries[entry.message] = (*entries.get(entry.message, ()), entry)
        return LedgerState(
            last,
            {e.key: e for e in lasting if e.state == "raised"},
            notified,
            pending,
            entries,
            addressed,
        )

    def latest(self, cursor: duckdb.DuckDBPyConnection) -> list[Delivery]:
        """The newest step of every delivery, the oldest message first."""
        names = ", ".join(_select(column) for column in DELIVERY_COLUMNS)
        rows = cursor.execute(
            f"""SELECT {names} FROM {self.deliveries.sql}
            QUALIFY row_number() OVER (PARTITION BY message, channel ORDER BY count DESC) = 1
            ORDER BY first_at, message, channel"""
        ).fetchall()
        return [Delivery(*(_aware(value) for value in row)) for row in rows]

    def append(
        self,
        transaction: duckdb.DuckDBPyConnection,
        entries: Sequence[LedgerEntry] = (),
        deliveries: Iterable[Delivery] = (),
    ) -> None:
        """Add rows, within a transaction."""
        for table, rows in ((self.alerts, entries), (self.deliveries, tuple(deliveries))):
            if rows:
                names = ", ".join(quote(column) for column in table.columns)
                marks = ", ".join("?" for _ in table.columns)
                transaction.executemany(
                    f"INSERT INTO {table.sql} ({names}) VALUES ({marks})",
                    [astuple(row) for row in rows],
                )

    def _entries(
        self,
        cursor: duckdb.DuckDBPyConnection,
        where: str,
        parameters: Sequence[object] = (),
    ) -> list[LedgerEntry]:
        names = ", ".join(_select(column) for column in ENTRY_COLUMNS)
        rows = cursor.execute(
            f"SELECT {names} FROM {self.alerts.sql} {where} ORDER BY number", parameters
        ).fetchall()
        return [LedgerEntry(*(_aware(value) for value in row)) for row in rows]


TIMES = frozenset({"since", "seen_at", "taken_at", "next_at", "first_at"})
ENTRY_COLUMNS = tuple(each.name for each in fields(LedgerEntry))
DELIVERY_COLUMNS = tuple(each.name for each in fields(Delivery))


def alerts_table(use_case: UseCase) -> Table:
    """Conditions that began or ended, and events; it has no windows."""
    return Table(use_case.name, "alerts", _columns(ENTRY_COLUMNS), order=("number",))


def deliveries_table(use_case: UseCase) -> Table:
    """Steps of bringing messages to channels; it has no windows."""
    return Table(
        use_case.name,
        "alert_deliveries",
        _columns(DELIVERY_COLUMNS),
        order=("message", "channel", "count"),
    )


def _columns(names: Sequence[str]) -> dict[str, str]:
    numbers = {"number": "BIGINT", "count": "INTEGER", "attempts": "INTEGER"}
    return {
        name: "TIMESTAMPTZ" if name in TIMES else numbers.get(name, "VARCHAR") for name in names
    }


def _select(column: str) -> str:
    return f"timezone('UTC', {quote(column)})" if column in TIMES else quote(column)


def _aware(value: Any) -> Any:
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
