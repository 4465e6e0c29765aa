"""The picture of a replay: the metric by window for each policy, and what each decided when."""

from datetime import UTC
from pathlib import Path

import pandas as pd

from ml_platform.extras import extra
from ml_platform.replay.comparison import PolicyComparison
from ml_platform.spec.declared import LARGER_IS_BETTER

SMOOTHED = 14
"""Windows that a line is the mean of."""
MARKS = {"promoted": ("^", "tab:green"), "refused": ("x", "tab:red"), "failed": ("s", "black")}


def draw_replay(comparison: PolicyComparison, file: Path) -> Path:
    """Draw a comparison as a PNG, and return its path."""
    with extra():
        from matplotlib.figure import Figure

    standings = comparison.standings
    figure = Figure(figsize=(10, 4.2 + 0.32 * len(standings)), layout="constrained")
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=[3.4, 0.4 + 0.32 * len(standings)]
    )
    for place, standing in enumerate(standings):
        moments = [window.start.astimezone(UTC) for window in standing.by_window]
        values = pd.Series(list(standing.by_window.values()))
        smooth = values.rolling(SMOOTHED, center=True, min_periods=SMOOTHED // 2).mean()
        upper.plot(
            moments, smooth, color=f"C{place}", label=f"{standing.policy} {standing.value:.4f}"
        )
        for decision, (marker, color) in MARKS.items():
            made = [
                d.cutoff.start.astimezone(UTC) for d in standing.decisions if d.decision == decision
            ]
            label = (
                decision if place == 0 or not _used_before(comparison, place, decision) else None
            )
            if made:
                lower.plot(
                    made, [place] * len(made), marker, color=color, label=label, markersize=7
                )
    better = "more is better" if comparison.metric in LARGER_IS_BETTER else "less is better"
    upper.set_ylabel(f"{comparison.metric}, mean of {SMOOTHED} windows\n({better})", fontsize=9)
    upper.legend(fontsize=8, ncols=min(3, len(standings)), loc="best")
    upper.grid(alpha=0.3)
    upper.set_title(f"{comparison.use_case}: the same history under each policy", fontsize=10)
    lower.set_yticks(range(len(standings)), [standing.policy for standing in standings], fontsize=9)
    lower.set_ylim(len(standings) - 0.5, -0.5)
    lower.grid(alpha=0.3)
    lower.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    window_range = comparison.range
    lower.set_xlim(window_range.start.astimezone(UTC), window_range.end.astimezone(UTC))
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=100)
    return file


def _used_before(comparison: PolicyComparison, place: int, decision: str) -> bool:
    return any(
        made.decision == decision
        for standing in comparison.standings[:place]
        for made in standing.decisions
    )
