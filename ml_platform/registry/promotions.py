"""Which version serves from which event time on: decisions, appended and never changed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import duckdb

from ml_platform.errors import ModelNotFound, NoChampion, TableNotFound
from ml_platform.registry.models import Registry
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, Table
from ml_platform.storage.tables import ensure_table

CHAMPION = "champion"
"""MLflow alias of the version that serves now."""

NOT_JUDGED = "not judged: "
"""How the reason of a refusal begins where rows were too few, or the metric not defined."""

Decision = Literal["promoted", "refused", "waiting", "rolled back"]
"""A version that is `waiting` passed the gate and waits for a person, whose answer follows."""


@dataclass(frozen=True)
class Promotion:
    """One decision about one version; that it is refused, or waits for a person, is one too."""

    version: int
    effective_from: datetime
    """Event time from which on the version serves, if it does."""
    decided_at: datetime
    decided_by: str
    decision: Decision
    reason: str
    figures: Mapping[str, float] = field(default_factory=dict)
    """What the decision was based on."""
    left_out: tuple[str, ...] = ()
    """Columns that the version was trained without, since none of its rows had a value."""
    too_good: str = ""
    """Why the version's holdout metric is too good to be true; empty where it is not."""

    @property
    def is_unjudged(self) -> bool:
        """Whether it was refused since there was nothing to judge it by, not for being worse."""
        return self.decision == "refused" and self.reason.startswith(NOT_JUDGED)

    @property
    def outcome(self) -> str:
        """What became of the version, in words: not judged is neither worse nor better."""
        return "not judged" if self.is_unjudged else self.decision

    @property
    def serves(self) -> bool:
        return self.decision in {"promoted", "rolled back"}


def promotions_table(use_case: UseCase) -> Table:
    """Where decisions are kept; it has no windows."""
    return Table(
        schema=use_case.name,
        name="promotions",
        columns={
            "version": "INTEGER",
            "effective_from": "TIMESTAMPTZ",
            "decided_at": "TIMESTAMPTZ",
            "decided_by": "VARCHAR",
            "decision": "VARCHAR",
            "reason": "VARCHAR",
            "figures": "MAP(VARCHAR, DOUBLE)",
            "left_out": "VARCHAR[]",
            "too_good": "VARCHAR",
        },
        order=("decided_at", "version"),
    )


def record(
    lake: Lake,
    use_case: UseCase,
    promotion: Promotion,
    commit: Commit,
    *,
    seen: int | None = None,
    basis: Basis | None = None,
) -> bool:
    """Append one decision, in one transaction; whether it was appended.

    A version is decided about once, and once more where it was found to wait: of two who answer
    at the same time the second finds it answered. Rolled back is often.
    seen: how many decisions this one takes into account; nothing is appended where there are more.
    basis: what the decision rests on; InputsChanged where that holds no more.
    It is stored as decided after all decisions before it, also where the clock has gone back.
    """
    table = promotions_table(use_case)
    values = [
        promotion.version,
        promotion.effective_from,
        promotion.decided_at,
        promotion.decided_by,
        promotion.decision,
        promotion.reason,
        list(promotion.figures),
        list(promotion.figures.values()),
        list(promotion.left_out),
        promotion.too_good,
    ]
    # Which decision is the latest is what decides who serves.
    after_all = f"(SELECT max(decided_at) + INTERVAL 1 MICROSECOND FROM {table.sql})"
    insert = (
        f"INSERT INTO {table.sql} ({', '.join(table.columns)}) VALUES "
        f"(?, ?, greatest(?, {after_all}), ?, ?, ?, map(?::VARCHAR[], ?::DOUBLE[]), "
        "?::VARCHAR[], ?)"
    )
    made = f"SELECT decision FROM {table.sql} WHERE version = ? AND decision <> 'rolled back'"

    def work(cursor: duckdb.DuckDBPyConnection) -> bool:
        if basis is not None:
            basis.require(cursor)
        decided = [row[0] for row in cursor.execute(made, [promotion.version]).fetchall()]
        # Looked at here, in the transaction: what was read before it may be out of date.
        is_answer = decided == ["waiting"] and promotion.decision != "waiting"
        if promotion.decision != "rolled back" and decided and not is_answer:
            return False
        counted = cursor.execute(f"SELECT count(*) FROM {table.sql}").fetchone()
        if seen is not None and counted and counted[0] > seen:
            return False
        cursor.execute(insert, values)
        return True

    with lake.cursor(use_case.timezone) as cursor:
        ensure_table(lake, cursor, table, commit, partitioned=False)
        return lake.transact(cursor, commit, work)


def history(lake: Lake, use_case: UseCase) -> list[Promotion]:
    """Every decision about a use case, in the order in which they were made; times in UTC."""
    with lake.cursor() as cursor:
        try:
            table = lake.relation(cursor, use_case.name, "promotions")
        except TableNotFound:
            return []
        rows = cursor.execute(
            f"""SELECT version, timezone('UTC', effective_from), timezone('UTC', decided_at),
            decided_by, decision, reason, map_keys(figures), map_values(figures),
            coalesce(left_out, []), coalesce(too_good, '')
            FROM {table} ORDER BY decided_at, version"""
        ).fetchall()
    return [_promotion(*row) for row in rows]


def newest_undecided(registry: Registry, use_case: UseCase, decisions: Sequence[Promotion]) -> int:
    """The newest version that nothing was decided about; ModelNotFound where there is none."""
    decided = {promotion.version for promotion in decisions}
    left = [version for version in registry.versions(use_case) if version not in decided]
    if not left:
        raise ModelNotFound(
            f"{use_case.name} has no version that nothing was decided about; `ml-platform train "
            f"{use_case.name} --cutoff …` makes one"
        )
    return left[-1]


def decided_with(lake: Lake, use_case: UseCase, name: str, value: str) -> int | None:
    """Number of the decision, the first is 1, whose commit says a value under a name.

    None where no commit does.
    """
    with lake.cursor() as cursor:
        snapshot = lake.snapshot_saying(cursor, name, value)
        if snapshot is None:
            return None
        try:
            table = lake.relation(cursor, use_case.name, "promotions")
        except TableNotFound:
            return None
        # Each decision is stored as later than all before it, so it was the last one then. None is
        # ever changed, and merged files keep the snapshots of their rows.
        row = cursor.execute(
            f"SELECT count(*) FROM {table} WHERE snapshot_id <= {snapshot:d}"
        ).fetchone()
    return int(row[0]) if row and row[0] else None


def latest_decision(decisions: Sequence[Promotion], version: int) -> Promotion | None:
    """What was decided about a version last, rollbacks to it aside; None where nothing was."""
    about = [p for p in decisions if p.version == version and p.decision != "rolled back"]
    return about[-1] if about else None


def champion_at(decisions: Sequence[Promotion], moment: datetime) -> int:
    """The version that serves at a moment of event time; NoChampion where there is none."""
    version = champion_if_any(decisions, moment)
    if version is None:
        raise NoChampion(
            f"no promotion is effective at {moment.isoformat()}; train a model with a cutoff at or "
            "before it and have it promoted"
        )
    return version


def champion_if_any(decisions: Sequence[Promotion], moment: datetime) -> int | None:
    """The version that serves at a moment of event time; None where there is none.

    It is that of the latest promotion or rollback effective then; of those effective from the
    same moment on, the one decided last. A rollback also ends every promotion decided before it
    that is effective from a later moment on.

    >>> at = datetime(2024, 1, 1, tzinfo=UTC)
    >>> champion_if_any([Promotion(3, at, at, "ada", "promoted", "first model")], at)
    3
    """
    rollbacks = [p for p in decisions if p.decision == "rolled back"]
    effective = [
        (p.effective_from.astimezone(UTC), p.decided_at.astimezone(UTC), index)
        for index, p in enumerate(decisions)
        if p.serves and p.effective_from.astimezone(UTC) <= moment.astimezone(UTC)
        if not any(_ends(rollback, p) for rollback in rollbacks)
    ]
    return decisions[max(effective)[-1]].version if effective else None


def champions_of(
    lake: Lake, use_case: UseCase, window_range: Window
) -> tuple[dict[Window, int], dict[Window, NoChampion]]:
    """The champion of each window of a range; windows that have none have the error instead.

    A window's champion is the version that serves when the window begins. Both in order of time.
    """
    decisions = history(lake, use_case)
    champions: dict[Window, int] = {}
    lacking: dict[Window, NoChampion] = {}
    for window in use_case.calendar.windows(window_range):
        try:
            champions[window] = champion_at(decisions, window.start)
        except NoChampion as error:
            lacking[window] = NoChampion(f"{use_case.name}: {error}")
    return champions, lacking


def _promotion(
    version: int,
    effective_from: datetime,
    decided_at: datetime,
    decided_by: str,
    decision: Decision,
    reason: str,
    names: Sequence[str],
    values: Sequence[float],
    left_out: Sequence[str],
    too_good: str,
) -> Promotion:
    return Promotion(
        version=version,
        effective_from=effective_from.replace(tzinfo=UTC),
        decided_at=decided_at.replace(tzinfo=UTC),
        decided_by=decided_by,
        decision=decision,
        reason=reason,
        figures=dict(zip(names, values, strict=True)),
        left_out=tuple(left_out),
        too_good=too_good,
    )


def _ends(rollback: Promotion, promotion: Promotion) -> bool:
    return (
        rollback.decided_at > promotion.decided_at
        and rollback.effective_from <= promotion.effective_from
    )
