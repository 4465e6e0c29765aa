"""What the commits of expired snapshots said: when, by which run and code, from which snapshot on.

A window holds what it holds since a snapshot, and that may have expired: whether the window is
stale is read from what its commit said. So that is kept, in a table of the platform's own.
"""

import duckdb

from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.lake import EXPIRED_COMMITS, Lake
from ml_platform.storage.tables import Table, evolve

TABLE = Table(
    schema=PLATFORM,
    name=EXPIRED_COMMITS,
    columns={
        "snapshot": "BIGINT",
        "made_at": "TIMESTAMPTZ",
        "author": "VARCHAR",
        "message": "VARCHAR",
        "extra": "VARCHAR",
    },
    order=("snapshot",),
)


def keep_commits(lake: Lake, transaction: duckdb.DuckDBPyConnection, snapshots: str) -> None:
    """Note what the commits of some snapshots said, within a transaction.

    snapshots: SQL that yields their numbers. Whoever read at one of them finds it noted when they
    commit, and begins again.
    """
    said = lake.commits(transaction, timed=True)
    names = ", ".join(TABLE.columns)
    evolve(transaction, TABLE, partitioned=False)
    transaction.execute(
        f"INSERT INTO {TABLE.sql} ({names}) SELECT {names} FROM {said} "
        f"WHERE snapshot IN ({snapshots}) ORDER BY snapshot"
    )


def noted_and_there(lake: Lake, cursor: duckdb.DuckDBPyConnection) -> list[int]:
    """Snapshots that are noted as expired and are still there, in order."""
    if EXPIRED_COMMITS not in lake.tables(cursor, PLATFORM):
        return []
    rows = cursor.execute(
        f"""SELECT snapshot_id FROM {METADATA}.ducklake_snapshot
        WHERE snapshot_id IN (SELECT snapshot FROM {TABLE.sql}) ORDER BY 1"""
    ).fetchall()
    return [snapshot for (snapshot,) in rows]


def expire(transaction: duckdb.DuckDBPyConnection, snapshots: list[int]) -> None:
    """Let snapshots expire within a transaction; `keep_commits` has noted them before.

    Files that none of the others needs are scheduled for deletion.
    """
    listed = ", ".join(map(str, snapshots))
    transaction.execute(
        f"CALL ducklake_expire_snapshots({literal('lake')}, versions => [{listed}])"
    )
