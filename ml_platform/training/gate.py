"""The promotion gate: a challenger replaces the champion if it is better on the same rows."""

from dataclasses import dataclass
from datetime import UTC, datetime

import pandas as pd

from ml_platform.errors import EmptySample, FeatureError, NoChampion
from ml_platform.metrics import measure
from ml_platform.registry import (
    ModelVersion,
    Promotion,
    Registry,
    champion_at,
    history,
    point_alias,
    predict,
    record,
)
from ml_platform.registry.promotions import Decision
from ml_platform.spec.declared import LARGER_IS_BETTER
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training.training_set import labelled


@dataclass(frozen=True)
class _Verdict:
    decision: Decision
    reason: str
    figures: dict[str, float]


def decide(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    version: int,
    commit: Commit,
    *,
    decided_by: str,
) -> Promotion:
    """Promote a version from its cutoff on, or refuse it, and record why.

    Champion and challenger predict the labelled rows of the challenger's holdout, at the snapshot
    that it was trained at; neither was fitted on them. The challenger is promoted if the use
    case's metric is better by `model.min_improvement` at least, or if there is no champion at its
    cutoff. A version is decided about once: asking again returns the decision.
    """
    decisions = history(lake, use_case)
    if made := _made(decisions, version):
        point_alias(lake, registry, use_case)
        return made
    challenger = registry.load(use_case, version)
    try:
        champion = registry.load(use_case, champion_at(decisions, challenger.cutoff))
    except NoChampion:
        champion = None
    verdict = _compare(use_case, challenger, champion, _judged_on(lake, use_case, challenger))
    promotion = Promotion(
        version=version,
        effective_from=challenger.cutoff,
        decided_at=datetime.now(UTC),
        decided_by=decided_by,
        decision=verdict.decision,
        reason=verdict.reason,
        figures=verdict.figures,
    )
    record(lake, use_case, promotion, commit)
    point_alias(lake, registry, use_case)
    # Another process may have decided in the meantime; then its decision is the one that counts.
    return _made(history(lake, use_case), version) or promotion


def _made(decisions: list[Promotion], version: int) -> Promotion | None:
    return next(
        (p for p in decisions if p.version == version and p.decision != "rolled back"), None
    )


def _judged_on(lake: Lake, use_case: UseCase, challenger: ModelVersion) -> pd.DataFrame:
    holdout = Window(challenger.trained_until, challenger.cutoff)
    with lake.cursor(use_case.timezone) as cursor:
        return labelled(cursor, lake, use_case, holdout, challenger.cutoff, challenger.snapshot)


def _compare(
    use_case: UseCase,
    challenger: ModelVersion,
    champion: ModelVersion | None,
    rows: pd.DataFrame,
) -> _Verdict:
    metric = use_case.model.metric
    figures = {"rows": float(len(rows)), **_figures(use_case, "challenger", challenger, rows)}
    ours = figures[f"challenger_{metric}"]
    if champion is None:
        return _Verdict("promoted", f"first model, {metric} {ours:.4f}", figures)
    figures["champion_version"] = float(champion.version)
    try:
        figures |= _figures(use_case, "champion", champion, rows)
    except FeatureError as error:
        reason = f"champion {champion.version} cannot score today's features: {error}"
        return _Verdict("promoted", reason, figures)
    theirs = figures[f"champion_{metric}"]
    gain = ours - theirs if metric in LARGER_IS_BETTER else theirs - ours
    if metric == "bias":
        gain = abs(theirs) - abs(ours)
    figures["improvement"] = gain
    decision: Decision = "promoted" if gain >= use_case.model.min_improvement else "refused"
    reason = (
        f"{metric} {ours:.4f} against {theirs:.4f} of champion {champion.version} on "
        f"{len(rows)} rows: improvement {gain:+.4f}, needed {use_case.model.min_improvement:+.4f}"
    )
    return _Verdict(decision, reason, figures)


def _figures(
    use_case: UseCase, role: str, model: ModelVersion, rows: pd.DataFrame
) -> dict[str, float]:
    measured = measure(use_case.label.task, rows["label"], predict(use_case, model, rows))
    if use_case.model.metric not in measured:
        raise EmptySample(
            f"{use_case.name}: {use_case.model.metric} is not defined on the {len(rows)} rows "
            "of the holdout, whose labels are all the same; take a longer model.holdout"
        )
    return {f"{role}_{name}": value for name, value in measured.items()}
