"""Dagster's event log on SQLite, quick enough for ranges of a thousand partitions."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from dagster import AssetKey, EventLogEntry
from sqlalchemy import Connection, Engine, create_engine, event

from ml_platform_dagster.resources.home import make_whole
from ml_platform_dagster.resources.private import (
    ASSET_EVENTS,
    EVENT_LOG,
    ConfigurableClassData,
    ConsolidatedSqliteEventLogStorage,
)

BUSY_SECONDS = 60
# SQLite takes 32,766 values a statement; an event has seven.
ROWS_A_STATEMENT = 1000


class BatchingSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """One database, one engine a process, one transaction a batch.

    Dagster's own storage makes an engine and four synchronised transactions for each event, which
    for 365 partitions takes several times as long as computing them. `DAGSTER_EVENT_BATCH_SIZE`
    turns batches on. A power failure may lose the last events, never the order of the others.

    A run that is ended while it stores events stores them to the end first.
    """

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        database = Path(base_dir) / EVENT_LOG
        make_whole(
            database, "event_logs", lambda at: ConsolidatedSqliteEventLogStorage(str(at)).dispose()
        )
        super().__init__(base_dir, inst_data)

    @cached_property
    def _engine(self) -> Engine:
        engine = create_engine(self._conn_string, connect_args={"timeout": BUSY_SECONDS})

        @event.listens_for(engine, "connect")
        def _configure(connection: Any, _record: Any) -> None:
            # With a write-ahead log this waits for the disk at checkpoints, not at every commit.
            connection.execute("PRAGMA synchronous = NORMAL")

        return engine

    @cached_property
    def _batch(self) -> threading.local:
        return threading.local()

    @contextmanager
    def _connect(self) -> Iterator[Connection]:
        open_batch = getattr(self._batch, "connection", None)
        if open_batch is not None:
            yield open_batch
            return
        with _uninterrupted(), self._engine.begin() as connection:
            yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction.

        What happens to partitions goes into the log together, and is noted with its asset once:
        storing it singly notes each partition in turn, over the one before.
        """
        with _uninterrupted(), self._engine.begin() as connection:
            self._batch.connection = connection
            try:
                for of_assets, alike in groupby(events, _is_of_an_asset):
                    if of_assets:
                        self._store_together(connection, list(alike))
                    else:
                        for entry in alike:
                            self.store_event(entry)
            finally:
                del self._batch.connection

    def _store_together(self, connection: Connection, entries: Sequence[EventLogEntry]) -> None:
        ids: list[int] = []
        for first in range(0, len(entries), ROWS_A_STATEMENT):
            insert = self.prepare_insert_event_batch(entries[first : first + ROWS_A_STATEMENT])
            # In the order in which they were given: SQLite numbers rows as it inserts them.
            ids += sorted(connection.scalars(insert.returning(insert.table.c.id)))
        self.store_asset_event_tags(entries, ids)
        numbered = zip(ids, entries, strict=True)
        newest = {(e.dagster_event_type, _asset_of(e)): (number, e) for number, e in numbered}
        for number, entry in sorted(newest.values(), key=itemgetter(0)):
            self.store_asset_event(entry, number)

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()  # type: ignore[no-untyped-call]
        self._engine.dispose()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let an interrupt wait until the transaction is over.

    Raised between two statements of sqlite3 it leaves the transaction open for as long as the
    exception is alive: the run waits for its own lock, and so do all who write to the event log.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {each: signal.signal(each, lambda n, _: held.append(n)) for each in numbers}
    try:
        yield
    finally:
        for each in numbers:
            signal.signal(each, before[each])
        # Looked at when nothing is held any more, so that none is lost.
        for number in held:
            signal.raise_signal(number)


def _is_of_an_asset(entry: EventLogEntry) -> bool:
    return entry.dagster_event_type in ASSET_EVENTS and _asset_of(entry) is not None


def _asset_of(entry: EventLogEntry) -> AssetKey | None:
    return entry.dagster_event.asset_key if entry.dagster_event else None
