"""The promotion gate: read what a challenger is judged on, decide, and keep the decision."""

from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pandas as pd

from ml_platform.errors import EnvironmentDiffers
from ml_platform.registry import (
    ModelVersion,
    Promotion,
    Registry,
    champion_if_any,
    describe_version,
    history,
    latest_decision,
    point_alias,
    record,
)
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Basis, Commit, Lake, Read, begin_again
from ml_platform.training.training_set import labelled
from ml_platform.training.verdict import GateVerdict, judge, judged_range
from ml_platform.training.verdict_picture import draw_verdict


@dataclass(frozen=True)
class Decided:
    """A decision, and what it rests on where it was made by this call."""

    promotion: Promotion
    verdict: GateVerdict | None = None
    """None where the version had been decided about before."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """PNG images by name; none where nothing was compared."""


def decide(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    version: int,
    commit: Commit,
    *,
    decided_by: str,
) -> Decided:
    """Promote a version from its cutoff on, or refuse it, and record why.

    Champion and challenger predict the same labelled rows, at the snapshot that the challenger was
    trained at; neither was fitted on them. What is asked of the challenger says `judge`. Where
    `retrain.approval` is required, one that passes waits for a person instead of being promoted.
    A version is decided about once: asking again returns the decision.
    """

    def attempt(_: duckdb.DuckDBPyConnection, basis: Basis) -> Decided:
        return _decided(lake, registry, use_case, version, commit, decided_by, basis)

    # Decided against the champion of that moment: another decision meanwhile asks for another look.
    decided = begin_again(
        lake, use_case, [Read("promotions")], f"deciding about version {version}", attempt
    )
    point_alias(lake, registry, use_case)
    describe_version(lake, registry, use_case, version)
    return decided


def _decided(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    version: int,
    commit: Commit,
    decided_by: str,
    basis: Basis,
) -> Decided:
    decisions = history(lake, use_case)
    if made := latest_decision(decisions, version):
        return Decided(made)
    challenger = registry.load(use_case, version)
    serving = champion_if_any(decisions, challenger.cutoff)
    champion, unloadable = _champion(registry, use_case, serving)
    rows = _rows(lake, use_case, challenger, champion)
    verdict = judge(use_case, challenger, champion, rows, unloadable=unloadable)
    waits = verdict.decision == "promoted" and use_case.retrain.approval == "required"
    promotion = Promotion(
        version=version,
        effective_from=challenger.cutoff,
        decided_at=datetime.now(UTC),
        decided_by=decided_by,
        decision="waiting" if waits else verdict.decision,
        reason=verdict.reason,
        figures=verdict.figures,
        left_out=tuple(name for name in challenger.columns if name in challenger.left_out),
        too_good=challenger.too_good,
    )
    if record(lake, use_case, promotion, commit, basis=basis):
        return Decided(promotion, verdict, draw_verdict(use_case, verdict))
    # Another process has decided in the meantime; its decision is the one that counts.
    return Decided(latest_decision(history(lake, use_case), version) or promotion)


def _champion(
    registry: Registry, use_case: UseCase, serving: int | None
) -> tuple[ModelVersion | None, str | None]:
    """The champion, or why it cannot be loaded where its challenger was trained."""
    if serving is None:
        return None, None
    try:
        return registry.load(use_case, serving), None
    except EnvironmentDiffers as error:
        # Of before an upgrade: what serves next has to come from the environment of now.
        return None, f"champion {serving} cannot be compared with: {error}"


def _rows(
    lake: Lake, use_case: UseCase, challenger: ModelVersion, champion: ModelVersion | None
) -> pd.DataFrame:
    window_range = judged_range(challenger, champion)
    if window_range is None:
        return pd.DataFrame()
    with lake.cursor(use_case.timezone) as cursor:
        return labelled(
            cursor, lake, use_case, window_range, challenger.cutoff, challenger.snapshot
        )
