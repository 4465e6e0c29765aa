"""Who did what to which model or table: rows appended to one chain of hashes.

Each row's hash covers the row and the hash of the row before, so that a row that is changed, put
in or taken out breaks the chain there. What a chain cannot show is that its last rows are gone, or
that someone who may write the lake made all of it anew: keep the newest hash elsewhere.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import duckdb

from ml_platform.errors import AuditBroken, TableNotFound
from ml_platform.spec.queries import literal
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table, naive_utc

Channel = Literal["api", "cli", "ui"]
START = "0" * 64
"""What comes before the first row."""

_TABLE = Table(
    "platform",
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
class Deed:
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
    """A deed as it stands in the chain."""

    sequence: int
    """Counts from 1 without gaps."""
    at: datetime
    deed: Deed
    previous: str
    hash: str

    def computed(self) -> str:
        """The hash that this row should have."""
        deed = self.deed
        content = [
            self.sequence, naive_utc(self.at).isoformat(timespec="microseconds"), deed.who,
            deed.channel, deed.what, deed.use_case, deed.object, _json(deed.details), self.previous,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


@dataclass(frozen=True)
class Audit:
    """The audit of a deployment."""

    lake: Lake

    def record(self, deed: Deed, commit: Commit) -> Row:
        """Append a deed; of two that are recorded at once, one waits for the other."""

        def work(cursor: duckdb.DuckDBPyConnection) -> Row:
            # Read in the transaction that writes, so that no two rows follow the same one.
            last = cursor.execute(
                f"SELECT sequence, hash FROM {_TABLE.sql} ORDER BY sequence DESC LIMIT 1"
            ).fetchone()
            sequence, previous = last or (0, START)
            row = Row(sequence + 1, datetime.now(UTC), deed, previous, "")
            row = Row(row.sequence, row.at, deed, previous, row.computed())
            texts = [
                deed.who, deed.channel, deed.what, deed.use_case, deed.object, _json(deed.details),
                row.previous, row.hash,
            ]  # fmt: skip
            at = f"TIMESTAMP {literal(str(naive_utc(row.at)))}"
            values = ", ".join([str(row.sequence), at, *(literal(text) for text in texts)])
            cursor.execute(f"INSERT INTO {_TABLE.sql} VALUES ({values})")
            return row

        with self.lake.cursor() as cursor:
            ensure_table(self.lake, cursor, _TABLE, commit, partitioned=False)
            return self.lake.transact(cursor, commit, work)

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

    def verify(self) -> Sequence[Row]:
        """All rows, whose chain is whole; AuditBroken names the first row where it is not."""
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
    deed = Deed(who, channel, what, use_case, object, json.loads(details))
    return Row(sequence, at.replace(tzinfo=UTC), deed, previous, hash)


def _json(details: Mapping[str, str]) -> str:
    return json.dumps(dict(details), sort_keys=True, ensure_ascii=False)
