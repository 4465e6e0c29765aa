"""Dagster's event log on SQLite, quick enough for ranges of a thousand partitions."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from typing import Any

from dagster import AssetKey, EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite import ConsolidatedSqliteEventLogStorage
from sqlalchemy import Connection, Engine, create_engine, event

BUSY_SECONDS = 60
# SQLite takes 32,766 values a statement; an event has seven.
ROWS_A_STATEMENT = 1000


class BatchingSqliteEventLogStorage(ConsolidatedSqliteEventLogStorage):
    """One database, one engine a process, one transaction a batch.

    Dagster's own storage makes an engine and four synchronised transactions for each event, which
    for 365 partitions takes several times as long as computing them. `DAGSTER_EVENT_BATCH_SIZE`
    turns batches on. A power failure may lose the last events, never the order of the others.
    """

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
        with self._engine.begin() as connection:
            yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store events in one transaction.

        Materialisations go into the log together, and of each asset only the newest is noted as
        its last one: storing them singly notes each in turn, over the one before.
        """
        with self._engine.begin() as connection:
            self._batch.connection = connection
            try:
                for is_materialization, alike in groupby(events, _is_materialization):
                    if is_materialization:
                        self._store_materializations(connection, list(alike))
                    else:
                        for entry in alike:
                            self.store_event(entry)
            finally:
                del self._batch.connection

    def _store_materializations(
        self, connection: Connection, entries: Sequence[EventLogEntry]
    ) -> None:
        ids: list[int] = []
        for first in range(0, len(entries), ROWS_A_STATEMENT):
            insert = self.prepare_insert_event_batch(entries[first : first + ROWS_A_STATEMENT])
            # In the order in which they were given: SQLite numbers rows as it inserts them.
            ids += sorted(connection.scalars(insert.returning(SqlEventLogStorageTable.c.id)))
        self.store_asset_event_tags(entries, ids)
        newest = {
            _asset_of(entry): (entry, number) for entry, number in zip(entries, ids, strict=True)
        }
        for entry, number in newest.values():
            self.store_asset_event(entry, number)

    def dispose(self) -> None:
        """Close the connections."""
        super().dispose()
        self._engine.dispose()


def _is_materialization(entry: EventLogEntry) -> bool:
    return bool(entry.dagster_event and entry.dagster_event.is_step_materialization)


def _asset_of(entry: EventLogEntry) -> AssetKey | None:
    return entry.dagster_event.asset_key if entry.dagster_event else None
