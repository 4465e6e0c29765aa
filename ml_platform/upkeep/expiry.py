"""Snapshots that nothing names expire; those that something names never do.

First those that are to expire are noted, with what their commits said, in a transaction in which
nothing has come to name them. Then they are let expire, in batches that hold up no writer for long.
Whoever is killed in between leaves the rest to the next time.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import duckdb

from ml_platform.storage import Commit, Lake
from ml_platform.storage.commits import expire, keep_commits, noted_and_there
from ml_platform.storage.known_files import METADATA
from ml_platform.upkeep.names import Named

YOUNG = timedelta(days=1)
"""Younger snapshots are kept whatever the retention is: a command may be reading them."""
BATCH = 2000
NEWEST, RECENT, UNLIMITED = "it is the newest", "younger than its retention", "no retention is set"


@dataclass(frozen=True)
class ExpiryPlan:
    """Which snapshots may expire, and what keeps the others."""

    at: int
    """The newest snapshot when it was made."""
    expired: tuple[int, ...]
    kept: int
    reasons: Mapping[str, int] = field(default_factory=dict)
    """How many snapshots are kept by what; something may be kept by several."""
    noted: int = 0
    """How many of those that may expire were noted before, by an upkeep that was cut short."""


def plan_expiry(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    named: Iterable[Named],
    retention: timedelta | None,
    now: datetime,
) -> ExpiryPlan:
    """What would expire. retention: how long what nothing names is kept; None for good."""
    newest = lake.snapshot(cursor)
    made = dict(
        cursor.execute(
            f"""SELECT snapshot_id, epoch_us(CAST(snapshot_time AS TIMESTAMPTZ))
            FROM {METADATA}.ducklake_snapshot WHERE snapshot_id <= {newest:d}"""
        ).fetchall()
    )
    noted = {snapshot for snapshot in noted_and_there(lake, cursor) if snapshot in made}
    kept: dict[str, Collection[int]] = {NEWEST: {newest}}
    if retention is None:
        kept[UNLIMITED] = made.keys() - noted
    else:
        since = _microseconds(now - max(retention, YOUNG))
        kept[RECENT] = {snapshot for snapshot, at in made.items() if at >= since} - noted
    for each in named:
        since = 0 if each.kept_for is None else _microseconds(now - max(each.kept_for, YOUNG))
        # What was named and has expired nevertheless is no more.
        kept[each.by] = {s for s in each.snapshots if s in made and made[s] >= since} - noted
    all_kept = set().union(*kept.values())
    return ExpiryPlan(
        at=newest,
        expired=tuple(sorted(made.keys() - all_kept)),
        kept=len(all_kept),
        reasons={why: len(snapshots) for why, snapshots in kept.items() if snapshots},
        noted=len(noted),
    )


def carry_out(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    plan: ExpiryPlan,
    commit: Commit,
    named_since: Callable[[duckdb.DuckDBPyConnection, int], Collection[int]],
) -> int:
    """Let expire what a plan says and nothing has come to name since; how many that were.

    named_since: what rows written after a snapshot name, read within a transaction.
    """
    _note(lake, cursor, plan.expired, plan.at, commit, named_since)
    left = noted_and_there(lake, cursor)
    for first in range(0, len(left), BATCH):
        _expire(lake, cursor, left[first : first + BATCH], commit)
    return len(left)


def _note(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    snapshots: Sequence[int],
    at: int,
    commit: Commit,
    named_since: Callable[[duckdb.DuckDBPyConnection, int], Collection[int]],
) -> None:
    left = set(snapshots).difference(noted_and_there(lake, cursor))
    if not left:
        return

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        chosen = sorted(left.difference(named_since(transaction, at)))
        transaction.execute(
            "CREATE OR REPLACE TEMP TABLE __expired AS SELECT unnest(?::BIGINT[]) AS snapshot",
            [chosen],
        )
        keep_commits(lake, transaction, "SELECT snapshot FROM temp.__expired")

    lake.transact(cursor, commit, work)


def _expire(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, batch: list[int], commit: Commit
) -> None:
    lake.transact(cursor, commit, lambda transaction: expire(transaction, batch))


def _microseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1_000_000)
