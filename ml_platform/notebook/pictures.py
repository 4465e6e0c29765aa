"""Pictures of reports, predictions and backtests."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ml_platform.registry import ChampionPeriod
from ml_platform.replay.backtest import CHAMPION, MODEL, Backtest
from ml_platform.replay.comparison import CONFIDENCE
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import utc
from ml_platform.training.plots import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDE = (10.0, 4.0)
INCHES_A_COLUMN = 0.22
LARGEST_RATIO = 2.0
"""Of score and threshold: what is beyond has the same colour."""
BINS = 40
SHOWN_CLASSES = 20


def draw_performance(
    use_case: UseCase, report: pd.DataFrame, metric: str, periods: Sequence[ChampionPeriod]
) -> Picture:
    """A metric by partition, as first reported and as now known, with bounds and promotions.

    report: rows of the performance report of this metric; periods: who served when.
    """
    picture = Picture(f"{use_case.name}: {metric} by partition", "", metric, 0.08, WIDE)
    axes = picture.axes
    current, first = (report[report["revision"] == each] for each in ("current", "first"))
    axes.plot(_times(first), first["value"], ".", color="silver", label="as first reported")
    axes.plot(_times(current), current["value"], color="tab:blue", label="as now known")
    failed = current[(current["passed"] == False) & current["value"].notna()]  # noqa: E712
    if len(failed):
        axes.plot(_times(failed), failed["value"], "o", color="tab:red", label="outside its bounds")
    bounds = use_case.monitoring.performance.bounds_by(use_case.model.metric).get(metric)
    for place, bound in enumerate((bounds.min, bounds.max) if bounds else ()):
        if bound is not None:
            name = f"{'at most' if place else 'at least'} {bound:g}"
            axes.axhline(bound, linestyle="--", color="tab:red", label=name)
    _mark_promotions(axes, use_case, report, periods)
    axes.legend(fontsize=8, ncols=5, loc="lower left")
    axes.grid(alpha=0.3)
    _date(axes)
    return picture


def draw_drift(use_case: UseCase, report: pd.DataFrame, most: int) -> Picture:
    """Drift by column and partition, in units of each column's threshold.

    report: rows of the drift report; most: columns that are shown, those that drift most first.
    """
    ratio = _ratio(report)
    table = pd.DataFrame(
        {"column": report["column_name"], "at": _times(report), "ratio": ratio}
    ).pivot_table(index="column", columns="at", values="ratio", dropna=False)
    order = table.mean(axis=1).sort_values(ascending=False).index[:most]
    table = table.loc[order]
    height = 1.0 + INCHES_A_COLUMN * len(table)
    title = f"{use_case.name}: drift by column, score in units of its threshold"
    picture = Picture(title, "", "", 0.28, (WIDE[0], height))
    axes = picture.axes
    axes.set_position((0.28, 0.5 / height, 0.62, 1 - 1.0 / height))
    values = np.ma.masked_invalid(table.to_numpy(dtype=np.float64))
    edges = np.arange(len(table) + 1) - 0.5
    times = pd.DatetimeIndex(table.columns)
    step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else pd.Timedelta("1d")
    mesh = axes.pcolormesh(
        [*times, times[-1] + step], edges, values, cmap="RdBu_r", vmin=0, vmax=LARGEST_RATIO
    )
    axes.set_yticks(range(len(table)), list(table.index), fontsize=7)
    axes.invert_yaxis()
    _date(axes)
    beside = picture.figure.add_axes((0.91, 0.5 / height, 0.015, 1 - 1.0 / height))
    bar = picture.figure.colorbar(mesh, cax=beside, extend="max", ticks=[0, 1, 2])
    bar.ax.set_yticklabels(["0", "threshold", "twice"], fontsize=7)
    return picture


def draw_predictions(use_case: UseCase, predictions: pd.DataFrame) -> Picture:
    """Distribution of predictions, by label where it is known.

    predictions: prediction columns, and `label` where there is one.
    """
    task = use_case.label.task
    name = "probability" if task == "binary" else "predicted"
    picture = Picture(f"{use_case.name}: {len(predictions)} predictions", name, "rows")
    axes, labelled = picture.axes, predictions[predictions["label"].notna()]
    if task == "multiclass":
        counts = pd.DataFrame(
            {
                "predicted": predictions["predicted"].astype(str).value_counts(),
                "label": labelled["label"].astype(str).value_counts(),
            }
        ).fillna(0)
        counts = counts.sort_values("predicted", ascending=False).head(SHOWN_CLASSES)
        places = np.arange(len(counts))
        axes.bar(places - 0.2, counts["predicted"], 0.4, label="predicted")
        axes.bar(places + 0.2, counts["label"], 0.4, color="silver", label="label")
        axes.set_xticks(places, list(counts.index), rotation=90)
    elif task == "regression":
        both = np.concatenate([predictions["predicted"], labelled["label"].astype(np.float64)])
        edges = np.histogram_bin_edges(both, BINS).tolist()
        axes.hist(predictions["predicted"], edges, label="predicted")
        axes.hist(labelled["label"].astype(np.float64), edges, histtype="step",
                  color="black", label="label")  # fmt: skip
    else:
        edges = np.linspace(0, 1, BINS + 1).tolist()
        # An axis of its own for each: the rarer class would hardly be seen.
        for label, color in ((False, "tab:blue"), (True, "tab:red")):
            rows = labelled[labelled["label"].astype(bool) == label]["probability"]
            share = len(rows) / max(1, len(labelled))
            axes.hist(rows, edges, density=True, histtype="step", color=color,
                      label=f"label {str(label).lower()} ({share:.0%})")  # fmt: skip
        axes.hist(predictions["probability"], edges, density=True, color="lightgrey",
                  zorder=0, label="all")  # fmt: skip
        axes.set_ylabel("density")
    axes.legend(fontsize=8)
    return picture


def draw_backtest(found: Backtest) -> Picture:
    """Estimator and champions by partition, and the resampled improvement."""
    picture = Picture(
        f"{found.use_case}: {found.metric} by partition, model {found.model[found.metric]:.4f}, "
        f"champions {found.champion[found.metric]:.4f}", "", found.metric, 0.08, WIDE
    )  # fmt: skip
    axes, rows = picture.axes, found.by_partition
    axes.set_position((0.08, 0.14, 0.56, 0.76))
    axes.title.set_fontsize(10)
    times = _times(rows)
    for name, color in ((CHAMPION, "silver"), (MODEL, "tab:blue")):
        axes.plot(times, rows[name], color=color, label=name)
    changes = rows["cutoff"].ne(rows["cutoff"].shift())
    axes.plot(times[changes], rows[MODEL][changes], "^", color="tab:blue", label="trained")
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    _date(axes)
    right = picture.figure.add_axes((0.71, 0.14, 0.26, 0.76))
    low, high = found.bounds
    right.hist(found.improvements, BINS, color="lightsteelblue")
    right.axvspan(low, high, alpha=0.15, label=f"{CONFIDENCE:.0%}: {low:+.4f} to {high:+.4f}")
    right.axvline(found.improvement, label=f"measured {found.improvement:+.4f}")
    right.axvline(0, color="tab:red", linestyle="--")
    right.set_title("improvement, right is better", fontsize=10)
    right.set_yticks([])
    right.locator_params(axis="x", nbins=4)
    right.tick_params(axis="x", labelsize=7)
    right.legend(fontsize=7)
    return picture


def _ratio(report: pd.DataFrame) -> "pd.Series[Any]":
    """Score over threshold, above 1 where a column drifts; of p-values it is the inverse."""
    score, threshold = (report[name].astype(np.float64) for name in ("score", "threshold"))
    smallest = np.finfo(np.float64).tiny
    inverse = threshold / score.clip(lower=smallest)
    return (score / threshold).where(report["method"] != "ks", inverse).clip(upper=LARGEST_RATIO)


def _mark_promotions(
    axes: "Axes", use_case: UseCase, report: pd.DataFrame, periods: Sequence[ChampionPeriod]
) -> None:
    first, last = report["window_at"].min(), report["window_at"].max()
    for period in periods:
        if utc(first) <= utc(period.since) <= utc(last):
            local = period.since.astimezone(use_case.calendar.timezone).replace(tzinfo=None)
            axes.axvline(local, color="tab:green", linewidth=0.8)  # type: ignore[arg-type]
            axes.text(
                local, 0.99, f" v{period.version}", color="tab:green", fontsize=8, va="top",  # type: ignore[arg-type]
                transform=axes.get_xaxis_transform(),
            )  # fmt: skip


def _date(axes: "Axes") -> None:
    """Have an axis of times with few labels, which do not overlap."""
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.tick_params(axis="x", labelsize=8)


def _times(report: pd.DataFrame) -> "pd.Series[Any]":
    """Starts of windows by the clocks of the use case."""
    times: pd.Series[Any] = report["window_at"].dt.tz_localize(None)
    return times
