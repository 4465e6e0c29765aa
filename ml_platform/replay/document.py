"""A replay as a document, for programs and for pages."""

import json
from pathlib import Path
from typing import Any

from ml_platform.replay.comparison import PolicyComparison
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window

PREFIX = "replay_"
"""Of the files of a use case's replays in its folder of reports."""


def as_document(use_case: UseCase, comparison: PolicyComparison) -> dict[str, Any]:
    """Everything that a replay found, in types of JSON; partitions by key, moments in ISO 8601."""

    def key(window: Window) -> str:
        return use_case.calendar.key(window)

    return {
        "use_case": comparison.use_case,
        "metric": comparison.metric,
        "from": comparison.range.start.isoformat(),
        "until": comparison.range.end.isoformat(),
        "rows": comparison.rows,
        "answer": comparison.answer,
        "best": comparison.best.policy,
        "cheapest_as_good": comparison.cheapest_as_good.policy,
        "policies": [
            {
                "policy": standing.policy,
                "value": standing.value,
                "mean_by_window": standing.mean,
                "together": dict(standing.together),
                "regret": standing.regret,
                "regret_95": list(standing.regret_bounds),
                "trainings": standing.trainings,
                "promoted": standing.count("promoted"),
                "refused": standing.count("refused"),
                "failed": standing.count("failed"),
                "fit_seconds": standing.fit_seconds,
                "score_seconds": standing.score_seconds,
                "decisions": [
                    {
                        "cutoff": key(made.cutoff),
                        "cause": made.cause,
                        "reason": made.reason,
                        "decision": made.decision,
                        "why": made.why,
                        "figures": dict(made.figures),
                    }
                    for made in standing.decisions
                ],
                "by_window": {key(w): value for w, value in standing.by_window.items()},
            }
            for standing in comparison.standings
        ],
    }


def newest_document(folder: Path) -> dict[str, Any] | None:
    """The document of the replay that was made last, of those in a folder; None without one."""
    files = sorted(folder.glob(f"{PREFIX}*.json"), key=lambda file: file.stat().st_mtime)
    if not files:
        return None
    found: dict[str, Any] = json.loads(files[-1].read_text())
    return found
