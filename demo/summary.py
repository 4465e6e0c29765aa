"""What the year came to: figures, decisions, and one picture."""

from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ml_platform.metrics import measure
from ml_platform.monitoring import stored_drift
from ml_platform.registry import Promotion, history
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


@dataclass(frozen=True)
class Summary:
    """The year in numbers."""

    use_case: UseCase
    rows: dict[str, int]
    decisions: list[Promotion]
    pooled: dict[str, float]
    """Metrics of all predictions whose label is known, taken together."""
    picture: Path

    def show(self, console: Console) -> None:
        """Print the summary as two small tables."""
        tables = Table("table", "rows", title=f"{self.use_case.name}: what is in the lake")
        for name, count in self.rows.items():
            tables.add_row(name, f"{count:,}")
        metric = self.use_case.model.metric
        models = Table("from", "version", "decision", f"its {metric}", "champion's", title="models")
        for decision in self.decisions:
            challenger = decision.figures.get(f"challenger_{metric}")
            champion = decision.figures.get(f"champion_{metric}")
            models.add_row(
                f"{decision.effective_from.astimezone(self.use_case.calendar.timezone):%Y-%m-%d}",
                str(decision.version),
                decision.decision,
                "" if challenger is None else f"{challenger:.4f}",
                "" if champion is None else f"{champion:.4f}",
            )
        console.print(tables, models)
        figures = ", ".join(f"{name} {value:.4f}" for name, value in self.pooled.items())
        console.print(f"All predictions together: {figures}")
        console.print(f"Picture: {self.picture}")


def summarize(lake: Lake, use_case: UseCase, year: Window, folder: Path) -> Summary:
    """Read the year back from the lake and draw its picture into a folder."""
    with lake.cursor(use_case.timezone) as cursor:
        names = sorted(lake.tables(cursor, use_case.name))
        rows = {}
        for name in names:
            counted = cursor.execute(
                f"SELECT count(*) FROM {lake.relation(cursor, use_case.name, name)}"
            ).fetchone()
            rows[name] = int(counted[0]) if counted else 0
        keys = ", ".join((*use_case.examples.entity, "event_time"))
        joined = cursor.execute(
            f"""SELECT probability, label FROM lake.{use_case.name}.predictions
            JOIN lake.{use_case.name}.labels USING ({keys})"""
        ).fetch_df()
        daily = cursor.execute(
            f"""SELECT window_at, value FROM lake.{use_case.name}.performance_report
            WHERE revision = 'current' AND metric = ? ORDER BY 1""",
            [use_case.model.metric],
        ).fetch_df()
    decisions = history(lake, use_case)
    picture = folder / f"{use_case.name}.png"
    _draw(lake, use_case, year, daily, decisions, picture)
    pooled = measure(use_case.label.task, joined["label"], joined[["probability"]])
    return Summary(use_case, rows, decisions, pooled, picture)


def _draw(
    lake: Lake,
    use_case: UseCase,
    year: Window,
    daily: pd.DataFrame,
    decisions: list[Promotion],
    file: Path,
) -> None:
    from matplotlib.figure import Figure

    zone = use_case.calendar.timezone
    metric = use_case.model.metric
    drift = [
        (r.window.start, len(r.drifted) / r.judged)
        for r in stored_drift(lake, use_case)
        if r.judged
    ]
    figure = Figure(figsize=(10, 5.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    upper.plot(daily["window_at"], daily["value"], ".", color="tab:blue", alpha=0.35, label="a day")
    mean = daily["value"].rolling(14, center=True, min_periods=5).mean()
    upper.plot(daily["window_at"], mean, color="tab:blue", label="14 days")
    bound = use_case.monitoring.performance.min
    if bound is not None:
        upper.axhline(bound, color="tab:red", linewidth=0.8, label=f"bound {bound}")
    upper.set_ylabel(metric)
    lower.fill_between(
        [d for d, _ in drift], [s for _, s in drift], step="mid", color="tab:orange", alpha=0.6
    )
    lower.axhline(use_case.monitoring.drift.share, color="tab:red", linewidth=0.8)
    lower.set_ylabel("share of columns\ndrifted, 28 days")
    for decision in decisions:
        style = "-" if decision.serves else ":"
        for axes in (upper, lower):
            axes.axvline(decision.effective_from, color="black", linewidth=0.7, linestyle=style)
        text = f"v{decision.version}" if decision.serves else f"v{decision.version} refused"
        upper.annotate(
            text, (decision.effective_from, 1), xycoords=("data", "axes fraction"), xytext=(2, -10),
            textcoords="offset points", fontsize=7,
        )  # fmt: skip
    upper.legend(loc="lower right", fontsize=8, ncols=3)
    upper.set_xlim(year.start.astimezone(UTC), year.end.astimezone(UTC))
    upper.set_title(
        f"{use_case.name} in {year.start.astimezone(zone):%Y}: "
        "each day scored by the champion of that day",
        fontsize=10,
    )
    figure.savefig(file, dpi=130)
