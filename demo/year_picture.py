"""The year in one picture: each day's performance and drift, versions promoted and refused."""

from datetime import UTC
from pathlib import Path

from ml_platform.monitoring import stored_drift
from ml_platform.registry import history
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


def draw_year(lake: Lake, use_case: UseCase, year: Window, file: Path) -> Path:
    """Draw performance and drift by partition, with decisions, as a PNG; returns its path."""
    from matplotlib.figure import Figure

    zone = use_case.calendar.timezone
    metric = use_case.model.metric
    with lake.cursor(use_case.timezone) as cursor:
        daily = cursor.execute(
            f"""SELECT window_at, value FROM lake.{use_case.name}.performance_report
            WHERE revision = 'current' AND metric = ? ORDER BY 1""",
            [metric],
        ).fetch_df()
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
    for decision in history(lake, use_case):
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
    return file
