"""Who did what to which model or table: rows appended to one chain of hashes.

Each row's hash covers the row and the hash of the row before, so that a row that is changed, put
in or taken out breaks the chain there. What a chain cannot show is that its last rows are gone, or
that someone who may write the lake rebuilt all of it: for that its ends are kept elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import duckdb

from ml_platform.access.audit_checkpoints import AuditCheckpoint, AuditCheckpoints
from ml_platform.errors import AuditBroken, TableNotFound
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import evolve, naive_utc

Channel = Literal["api", "cli", "pages", "ui", "dagster"]
"""By which way: `ui` is Dagster's, `dagster` whatever else launches runs there."""
START = "0" * 64
"""What comes before the first row."""

_TABLE = Table(
    PLATFORM,
    "audit",
    {
        "sequence": "BIGINT",
        "at": "TIMESTAMP",
        "who": "VARCHAR",
        "channel": "VARCHAR",
        "what": "VARCHAR",
        "use_case": "VARCHAR",
        "object": "VARCHAR",
        "details": "VARCHAR",
        "previous": "VARCHAR",
        "hash": "VARCHAR",
    },
    order=("sequence",),
)
_NAMES = ", ".join(f'"{name}"' for name in _TABLE.columns)


@dataclass(frozen=True)
class Action:
    """Something that a person or a program did."""

    who: str
    channel: Channel
    what: str
    """A verb: `train`, `approve`, `revoke key`."""
    use_case: str
    """Empty where it concerns none in particular."""
    object: str
    """What it was done to: `version 3`, `predictions 2024-01-02...2024-01-05`."""
    details: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """An action as it stands in the chain."""

    sequence: int
    """Counts from 1 without gaps."""
    at: datetime
    action: Action
    previous: str
    hash: str

    def computed(self) -> str:
        """The hash that this row should have."""
        action = self.action
        content = [
            self.sequence, naive_utc(self.at).isoformat(timespec="microseconds"), action.who,
            action.channel, action.what, action.use_case, action.object, _json(action.details),
            self.previous,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Audit:
    """The audit of a deployment."""

    lake: Lake

    def record(self, action: Action, commit: Commit) -> Row:
        """Append an action; of two that are recorded at once, one waits for the other."""
        with self.lake.cursor() as cursor:
            row = self.lake.transact(cursor, commit, lambda t: _append(t, [action]))
        AuditCheckpoints(self.lake.settings).keep(AuditCheckpoint(row.sequence, row.hash))
        return row

    def record_noted(self, actions: Sequence[Action], commit: Commit) -> None:
        """Append actions in one transaction, those that are not there yet.

        Each is known by what its details call `note`.
        """

        def work(transaction: duckdb.DuckDBPyConnection) -> Row | None:
            evolve(transaction, _TABLE, partitioned=False)
            listed = ", ".join(literal(action.details["note"]) for action in actions)
            found = transaction.execute(
                f"""SELECT json_extract_string(details, '$.note') AS note FROM {_TABLE.sql}
                WHERE note IN ({listed})"""
            ).fetchall()
            there = {note for (note,) in found}
            new = [action for action in actions if action.details["note"] not in there]
            return _append(transaction, new) if new else None

        if not actions:
            return
        with self.lake.cursor() as cursor:
            row = self.lake.transact(cursor, commit, work)
        if row is not None:
            AuditCheckpoints(self.lake.settings).keep(AuditCheckpoint(row.sequence, row.hash))

    def along(self, action: Action) -> "Along":
        """The row of an action that is a write to the lake, for its commit: `Commit(…, also=…)`."""
        return Along(self.lake, action)

    def rows(
        self,
        *,
        who: str | None = None,
        what: str | None = None,
        use_case: str | None = None,
        since: datetime | None = None,
    ) -> list[Row]:
        """Rows that fit all that is given, oldest first; `what` may be a part of the text."""
        conditions = ["true"]
        if who is not None:
            conditions.append(f"who = {literal(who)}")
        if what is not None:
            conditions.append(f"contains(what, {literal(what)})")
        if use_case is not None:
            conditions.append(f"use_case = {literal(use_case)}")
        if since is not None:
            conditions.append(f'"at" >= TIMESTAMP {literal(str(naive_utc(since)))}')
        with self.lake.cursor() as cursor:
            try:
                table = self.lake.relation(cursor, _TABLE.schema, _TABLE.name)
            except TableNotFound:
                return []
            found = cursor.execute(
                f"SELECT {_NAMES} FROM {table} WHERE {' AND '.join(conditions)} ORDER BY sequence"
            ).fetchall()
        return [_row(*values) for values in found]

    def verify(self, expected: str | None = None) -> Sequence[Row]:
        """All rows, whose chain is whole and continues from each end that it is known to have had.

        Those ends are what this machine kept, and `expected`, the hash of one that was kept
        elsewhere. AuditBroken names the first row where it is not so.
        """
        checkpoints = AuditCheckpoints(self.lake.settings)
        # Before the rows: what is recorded meanwhile has an end that these rows do not have.
        kept = checkpoints.read()
        rows = self._chained()
        _check_against(rows, kept, f"as {checkpoints.file} says")
        if expected is not None and expected not in {START, *(row.hash for row in rows)}:
            raise AuditBroken(
                len(rows),
                f"it has {len(rows)} rows and none has the hash {expected[:64]}: rows at its end "
                "are gone, or all of it was rebuilt",
                "nothing is proved by the rows that are there",
            )
        return rows

    def _chained(self) -> list[Row]:
        rows = self.rows()
        previous = START
        for number, row in enumerate(rows, start=1):
            if row.sequence > number:
                raise AuditBroken(number, f"row {number} is missing")
            if row.sequence < number:
                raise AuditBroken(row.sequence, f"row {row.sequence} is there twice")
            if row.hash != row.computed():
                raise AuditBroken(number, f"row {number} is not what was recorded")
            if row.previous != previous:
                raise AuditBroken(number, f"row {number} does not follow the row before it")
            previous = row.hash
        return rows


class Along:
    """The row of an action, written once, in the first transaction that does a part of it."""

    def __init__(self, lake: Lake, action: Action) -> None:
        self._lake, self._action = lake, action
        self._row: Row | None = None
        self._is_there = False

    def write(self, transaction: duckdb.DuckDBPyConnection) -> None:
        """Append the row."""
        if not self._is_there:
            self._row = _append(transaction, [self._action])

    def written(self) -> None:
        """Keep where the chain ends now."""
        if self._row is not None and not self._is_there:
            self._is_there = True
            AuditCheckpoints(self._lake.settings).keep(
                AuditCheckpoint(self._row.sequence, self._row.hash)
            )


def _append(transaction: duckdb.DuckDBPyConnection, actions: Sequence[Action]) -> Row:
    """Append actions, at least one; returns the last row."""
    evolve(transaction, _TABLE, partitioned=False)
    # Read in the transaction that writes, so that no two rows follow the same one.
    last = transaction.execute(
        f"SELECT sequence, hash FROM {_TABLE.sql} ORDER BY sequence DESC LIMIT 1"
    ).fetchone()
    sequence, previous = last or (0, START)
    rows: list[Row] = []
    for action in actions:
        sequence += 1
        row = Row(sequence, datetime.now(UTC), action, previous, "")
        rows.append(replace(row, hash=row.computed()))
        previous = rows[-1].hash
    values = ", ".join(f"({_values(row)})" for row in rows)
    transaction.execute(f"INSERT INTO {_TABLE.sql} VALUES {values}")
    return rows[-1]


def _values(row: Row) -> str:
    action = row.action
    texts = [
        action.who, action.channel, action.what, action.use_case, action.object,
        _json(action.details),
        row.previous, row.hash,
    ]  # fmt: skip
    at = f"TIMESTAMP {literal(str(naive_utc(row.at)))}"
    return ", ".join([str(row.sequence), at, *(literal(text) for text in texts)])


def _check_against(rows: Sequence[Row], checkpoints: Sequence[AuditCheckpoint], where: str) -> None:
    for checkpoint in checkpoints:
        if checkpoint.rows <= len(rows) and rows[checkpoint.rows - 1].hash != checkpoint.hash:
            raise AuditBroken(
                checkpoint.rows,
                f"row {checkpoint.rows} had another hash once, {where}: the chain was rebuilt",
                "nothing is proved by the rows that are there",
            )
    most = max((checkpoint.rows for checkpoint in checkpoints), default=0)
    if most > len(rows):
        raise AuditBroken(
            len(rows) + 1, f"it ends with row {len(rows)}, and had {most} once, {where}"
        )


def _row(
    sequence: int,
    at: datetime,
    who: str,
    channel: Channel,
    what: str,
    use_case: str,
    object: str,
    details: str,
    previous: str,
    hash: str,
) -> Row:
    action = Action(who, channel, what, use_case, object, json.loads(details))
    return Row(sequence, at.replace(tzinfo=UTC), action, previous, hash)


def _json(details: Mapping[str, str]) -> str:
    return json.dumps(dict(details), sort_keys=True, ensure_ascii=False)
