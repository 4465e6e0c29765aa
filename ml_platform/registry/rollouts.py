"""Versions that are tried beside the champion: decisions, appended and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import duckdb

from ml_platform.errors import RolloutRefused, TableNotFound
from ml_platform.registry.promotions import Promotion, champion_if_any, history
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Basis, Commit, Lake, Read, Table, begin_again
from ml_platform.storage.tables import ensure_table

Mode = Literal["shadow", "canary", "ended"]


@dataclass(frozen=True)
class Rollout:
    """One decision about how a version is tried; the newest one counts."""

    version: int
    mode: Mode
    share: float
    """Of the entities, from 0 to 1, that a canary answers; 0 otherwise."""
    decided_by: str
    reason: str
    decided_at: datetime


def rollouts_table(use_case: UseCase) -> Table:
    """Where decisions are kept; it has no windows."""
    return Table(
        schema=use_case.name,
        name="rollouts",
        columns={
            "version": "INTEGER",
            "mode": "VARCHAR",
            "share": "DOUBLE",
            "decided_by": "VARCHAR",
            "reason": "VARCHAR",
            "decided_at": "TIMESTAMPTZ",
        },
        order=("decided_at", "version"),
    )


def decide_rollout(lake: Lake, use_case: UseCase, rollout: Rollout, commit: Commit) -> Rollout:
    """Append a decision.

    Raises RolloutRefused for a share that is none, the champion itself, a second version while one
    is tried, and an end of what is not tried: of several workers that end it the first says why.
    """
    if rollout.mode == "canary" and not 0 < rollout.share <= 1:
        raise RolloutRefused(f"share {rollout.share:g} should be above 0 and at most 1")
    table = rollouts_table(use_case)

    def work(
        cursor: duckdb.DuckDBPyConnection, basis: Basis, decisions: Sequence[Promotion]
    ) -> Rollout:
        basis.require(cursor)
        tried = tried_now(_with_ends(_read(cursor, table.sql), decisions))
        if rollout.mode == "ended" and (tried is None or tried.version != rollout.version):
            raise RolloutRefused(f"{use_case.name}: version {rollout.version} is not being tried")
        if tried is not None and tried.version != rollout.version:
            raise RolloutRefused(
                f"{use_case.name}: version {tried.version} is being tried already; end it with "
                f"`ml-platform rollout {use_case.name} {tried.version} --end`"
            )
        values = [rollout.version, rollout.mode, rollout.share, rollout.decided_by,
                  rollout.reason, rollout.decided_at]  # fmt: skip
        cursor.execute(
            f"INSERT INTO {table.sql} ({', '.join(table.columns)}) VALUES (?, ?, ?, ?, ?, ?)",
            values,
        )
        return rollout

    def decide(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> Rollout:
        decisions = history(lake, use_case)
        champion = champion_if_any(decisions, datetime.now(UTC))
        if rollout.mode != "ended" and rollout.version == champion:
            raise RolloutRefused(
                f"{use_case.name}: version {rollout.version} serves already; try another one "
                "beside it"
            )
        ensure_table(lake, cursor, table, commit, partitioned=False)
        return lake.transact(
            cursor, commit, lambda transaction: work(transaction, basis, decisions)
        )

    what = f"the rollout of version {rollout.version}"
    return begin_again(lake, use_case, [Read("promotions")], what, decide)


def rollouts(
    lake: Lake, use_case: UseCase, decisions: Sequence[Promotion] | None = None
) -> list[Rollout]:
    """Every decision in the order in which they were made; times in UTC.

    decisions: the promotion history, where it has been read already. A rollback ends a canary:
    production is to answer as it did before, and nothing else.
    """
    with lake.cursor() as cursor:
        try:
            table = lake.relation(cursor, use_case.name, "rollouts")
        except TableNotFound:
            return []
        found = _read(cursor, table)
    return _with_ends(found, history(lake, use_case) if decisions is None else decisions)


def tried_now(decisions: Sequence[Rollout]) -> Rollout | None:
    """The rollout that the newest decision is about, unless that ended it.

    >>> at = datetime(2024, 1, 1, tzinfo=UTC)
    >>> tried_now([Rollout(3, "canary", 0.1, "ada", "", at)]).share
    0.1
    """
    return decisions[-1] if decisions and decisions[-1].mode != "ended" else None


def _with_ends(found: Sequence[Rollout], decisions: Sequence[Promotion]) -> list[Rollout]:
    """Rollouts with the end of each canary that a rollback has ended, which no row of them says.

    So both are one decision, and nothing is left to be done where a process dies between two.
    """
    rollbacks = [p for p in decisions if p.decision == "rolled back"]
    merged: list[Rollout] = []
    for number, rollout in enumerate(found):
        merged.append(rollout)
        until = found[number + 1].decided_at if number + 1 < len(found) else None
        ends = [
            p
            for p in rollbacks
            if p.decided_at > rollout.decided_at and (until is None or p.decided_at < until)
        ]
        if rollout.mode == "canary" and ends:
            merged.append(_ended_by(rollout, ends[0]))
    return merged


def _ended_by(rollout: Rollout, rollback: Promotion) -> Rollout:
    reason = f"rolled back to version {rollback.version}: {rollback.reason}"
    return Rollout(rollout.version, "ended", 0.0, rollback.decided_by, reason, rollback.decided_at)


def _read(cursor: duckdb.DuckDBPyConnection, table: str) -> list[Rollout]:
    rows = cursor.execute(
        f"""SELECT version, mode, share, decided_by, reason, timezone('UTC', decided_at)
        FROM {table} ORDER BY decided_at"""
    ).fetchall()
    return [
        Rollout(version, mode, share, decided_by, reason, decided_at.replace(tzinfo=UTC))
        for version, mode, share, decided_by, reason, decided_at in rows
    ]
