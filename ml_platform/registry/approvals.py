"""Challengers that passed the gate and wait for a person, and the person's answer."""

from dataclasses import replace
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import AnswerRefused, TableNotFound
from ml_platform.registry.card import decision_tags
from ml_platform.registry.champion_periods import champion_periods
from ml_platform.registry.mirrors import point_alias
from ml_platform.registry.models import Registry
from ml_platform.registry.promotions import Promotion, history, latest_decision, record
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, begin_again, read_of
from ml_platform.storage.tables import WINDOW_START, naive_utc

LAST_MOMENT = datetime(9999, 1, 1, tzinfo=UTC)


def waiting(lake: Lake, use_case: UseCase) -> list[Promotion]:
    """What waits for a person, with the figures of the comparison, oldest first."""
    decisions = history(lake, use_case)
    asked = [p for p in decisions if p.decision == "waiting"]
    return [p for p in asked if latest_decision(decisions, p.version) == p]


def answer(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    version: int,
    *,
    approve: bool,
    decided_by: str,
    reason: str,
    commit: Commit,
) -> Promotion:
    """Promote or refuse a version that waits; the answer is a row of its own in the history.

    An approved version serves from its cutoff on, or, where predictions have been made since, from
    the first partition after them: they were right to be the old champion's, and stay.
    Raises ModelNotFound where there is no such version; AnswerRefused where it does not wait,
    somebody answered first, or the champion is not the one that it was compared with.
    """

    def decide(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> Promotion:
        decisions = history(lake, use_case)
        asked = latest_decision(decisions, version)
        if asked is None or asked.decision != "waiting":
            if asked is None:
                # A number that MLflow does not know is a typo; that is what to say.
                registry.tags(use_case, version)
            raise AnswerRefused(_why_not(lake, use_case, version, asked))
        since = asked.effective_from
        if approve:
            _require_same_champion(use_case, decisions, asked)
            # Until the answer is committed nobody may predict with the old champion after it.
            basis = basis.also(read_of(use_case, "predictions", Window(since, LAST_MOMENT)))
            since = _first_unpredicted(lake, use_case, since)
        given = replace(
            asked,
            effective_from=since,
            decided_at=datetime.now(UTC),
            decided_by=decided_by,
            decision="promoted" if approve else "refused",
            reason=reason,
        )
        if not record(lake, use_case, given, commit, seen=len(decisions), basis=basis):
            latest = latest_decision(history(lake, use_case), version)
            raise AnswerRefused(_why_not(lake, use_case, version, latest))
        return given

    answered = begin_again(lake, use_case, (), f"answering about version {version}", decide)
    point_alias(lake, registry, use_case)
    registry.describe(use_case, version, decision_tags(answered))
    return answered


def _why_not(lake: Lake, use_case: UseCase, version: int, latest: Promotion | None) -> str:
    numbers = [str(p.version) for p in waiting(lake, use_case)]
    open_ones = f"what waits: {', '.join(numbers)}" if numbers else "nothing waits"
    if latest is None:
        return f"nothing was decided about version {version} of {use_case.name}; {open_ones}"
    if latest.decision == "waiting":
        return f"{use_case.name}: another decision was made in the meantime; look, and answer again"
    return (
        f"version {version} of {use_case.name} was {latest.decision} by {latest.decided_by} on "
        f"{latest.decided_at:%Y-%m-%d %H:%M} UTC, because: {latest.reason}; {open_ones}"
    )


def _require_same_champion(use_case: UseCase, decisions: list[Promotion], asked: Promotion) -> None:
    compared = asked.figures.get("champion_version")
    serving = float(served[-1].version) if (served := champion_periods(decisions)) else None
    if serving == compared:
        return
    was, now = ("no champion" if v is None else f"version {v:.0f}" for v in (compared, serving))
    raise AnswerRefused(
        f"version {asked.version} of {use_case.name} was compared with {was}, and {now} serves "
        "now; reject it, and train a new challenger"
    )


def _first_unpredicted(lake: Lake, use_case: UseCase, cutoff: datetime) -> datetime:
    with lake.cursor() as cursor:
        try:
            table = lake.relation(cursor, use_case.name, "predictions")
        except TableNotFound:
            return cutoff
        row = cursor.execute(
            f"SELECT max({WINDOW_START}) FROM {table} WHERE {WINDOW_START} >= ?",
            [naive_utc(cutoff)],
        ).fetchone()
    if row is None or row[0] is None:
        return cutoff
    return use_case.calendar.window_stored(row[0]).end
