"""Which versions could not serve where, and that they can again: appended, never changed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table

Happened = Literal["failed", "serving"]


@dataclass(frozen=True)
class ServingEvent:
    """A version that was to serve failed on a host, or serves there after it had failed."""

    happened_at: datetime
    host: str
    version: int
    kind: Happened
    problem: str
    """Why it does not serve; empty where it does."""


def serving_events_table(use_case: UseCase) -> Table:
    """Where the events are kept; it has no windows."""
    return Table(
        schema=use_case.name,
        name="serving_events",
        columns={
            "happened_at": "TIMESTAMPTZ",
            "host": "VARCHAR",
            "version": "INTEGER",
            "kind": "VARCHAR",
            "problem": "VARCHAR",
        },
        order=("happened_at", "host", "version"),
    )


def note_serving(lake: Lake, use_case: UseCase, event: ServingEvent, commit: Commit) -> bool:
    """Append an event where it is news; whether it was.

    Every worker of a host finds the same out, and finds it out again when it tries again: what is
    known already is not news, nor is a version that serves and never failed.
    """
    known = serving_events(lake, use_case)
    if not _is_news(event, known):
        return False
    table = serving_events_table(use_case)

    def work(cursor: duckdb.DuckDBPyConnection) -> bool:
        # Looked at once more, in the transaction: another worker may have been quicker.
        if not _is_news(event, _read(cursor, table.sql)):
            return False
        values = [event.happened_at, event.host, event.version, event.kind, event.problem]
        cursor.execute(
            f"INSERT INTO {table.sql} ({', '.join(table.columns)}) VALUES (?, ?, ?, ?, ?)", values
        )
        return True

    with lake.cursor() as cursor:
        ensure_table(lake, cursor, table, commit, partitioned=False)
        return lake.transact(cursor, commit, work)


def serving_events(lake: Lake, use_case: UseCase) -> list[ServingEvent]:
    """All of them in the order in which they happened; times in UTC."""
    with lake.cursor() as cursor:
        try:
            table = lake.relation(cursor, use_case.name, "serving_events")
        except TableNotFound:
            return []
        return _read(cursor, table)


def failing(events: list[ServingEvent], version: int) -> list[ServingEvent]:
    """The newest event of each host about a version, where that is a failure."""
    newest = {event.host: event for event in events if event.version == version}
    return [event for event in newest.values() if event.kind == "failed"]


def _read(cursor: duckdb.DuckDBPyConnection, table: str) -> list[ServingEvent]:
    rows = cursor.execute(
        f"""SELECT timezone('UTC', happened_at), host, version, kind, problem
        FROM {table} ORDER BY happened_at, host, version"""
    ).fetchall()
    return [ServingEvent(row[0].replace(tzinfo=UTC), *row[1:]) for row in rows]


def _is_news(event: ServingEvent, known: list[ServingEvent]) -> bool:
    alike = [e for e in known if (e.host, e.version) == (event.host, event.version)]
    if not alike:
        return event.kind == "failed"
    return (alike[-1].kind, alike[-1].problem) != (event.kind, event.problem)
