"""How good the model is, what each view adds to it, and what a linear model gets from the same."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from benchmarks.demo import demo_data
from benchmarks.result import Bench, Line, Result
from benchmarks.year import CUTOFF_AFTER, Year, prepared
from ml_platform.features import assemble
from ml_platform.metrics import measure
from ml_platform.replay import scheduled_cutoffs
from ml_platform.settings import Settings
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.training.estimator import build_estimator

ALL = "all columns"
LINEAR = "logistic regression, all columns"
REQUEST = "request columns only"
GATED = "through the gate, as in the demo"
RARE = 50
"""A category seen less often than this shares its column with the other rare ones."""


@dataclass(frozen=True)
class Month:
    """Rows to fit on and rows to predict."""

    name: str
    fitted: pd.DataFrame
    served: pd.DataFrame


def run(bench: Bench) -> Result:
    """Walk through the months with each variant of the model, then hold them side by side."""
    year = prepared(bench)
    months = list(_months(year))
    found = {}
    for name, columns in _variants(year.use_case).items():
        parts = [_predicted(year.use_case, name, columns, month) for month in months]
        found[name] = pd.concat(parts)
    demo = demo_data(bench)
    if bench.days is None and demo is not None:
        gated = _gated(year.use_case, Settings(data=demo))
        found[GATED] = gated[gated["event_time"] >= months[0].served["event_time"].iloc[0]]
    metric = year.use_case.model.metric
    pooled = {name: _value(year.use_case, metric, rows) for name, rows in found.items()}
    lines = tuple(
        Line(
            f"{ALL}, against {name}",
            f"{pooled[ALL]:.4f}",
            f"{value:.4f}",
            pooled[ALL] / value,
        )
        for name, value in pooled.items()
        if name != ALL
    )
    heading = (metric, "pooled", *(month.name for month in months))
    grid = (heading, *(_by_month(year, name, rows, months) for name, rows in found.items()))
    return Result(f"Model quality ({metric}, months pooled)", lines, _notes(year), grid)


def _months(year: Year) -> Iterator[Month]:
    """The windows that training uses: fitted is what was known when its holdout would begin."""
    case, zone = year.use_case, year.use_case.calendar.timezone
    with year.opened() as lake, lake.cursor(case.timezone) as cursor:
        snapshot, late = lake.snapshot(cursor), case.label.horizon.after(year.range.end, zone)
        rows = assemble(cursor, lake, case, year.range, snapshot, labels_known_by=late)
    served_from = Window(year.range.start + CUTOFF_AFTER, year.range.end)
    cutoffs = [cutoff.start for cutoff in scheduled_cutoffs(case, served_from)]
    time, known = rows["event_time"], rows["label_known_at"]
    for cutoff, until in zip(cutoffs, [*cutoffs[1:], year.range.end], strict=True):
        begin = case.model.window.before(cutoff, zone)
        holdout = case.model.holdout.before(cutoff, zone)
        fitted = rows[(time >= begin) & (time < holdout) & (known < holdout)]
        yield Month(f"{cutoff:%b}", fitted, rows[(time >= cutoff) & (time < until)])


def _variants(case: UseCase) -> dict[str, list[str]]:
    """Columns by variant."""
    columns = list(case.model_columns)
    without = {
        f"without {view}": [c for c in columns if not c.startswith(f"{view}__")]
        for view in case.model_views
    }
    return {ALL: columns, **without, REQUEST: list(case.examples.request), LINEAR: columns}


def _predicted(case: UseCase, name: str, columns: list[str], month: Month) -> pd.DataFrame:
    estimator = _linear(case) if name == LINEAR else build_estimator(case)
    estimator.fit(month.fitted[columns], month.fitted["label"].astype(int))
    probability = estimator.predict_proba(month.served[columns])[:, 1]
    return month.served[["event_time", "label"]].assign(probability=probability)


def _linear(case: UseCase) -> Any:
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = [name for name, kind in case.model_columns.items() if is_numeric(kind)]
    texts = [name for name in case.model_columns if name not in numbers]
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=RARE)
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), numbers),
        (encoder, texts),
    )
    return make_pipeline(columns, LogisticRegression(max_iter=300))


def _gated(case: UseCase, settings: Settings) -> pd.DataFrame:
    """What the demo predicted, each day by its champion, with the labels."""
    keys = ", ".join((*case.examples.entity, "event_time"))
    lake = Lake(settings)
    try:
        with lake.cursor(case.timezone) as cursor:
            return cursor.execute(
                f"""SELECT event_time, label, probability FROM lake.{case.name}.predictions
                JOIN lake.{case.name}.labels USING ({keys}) ORDER BY event_time"""
            ).fetch_df()
    finally:
        lake.close()


def _by_month(year: Year, name: str, rows: pd.DataFrame, months: list[Month]) -> tuple[str, ...]:
    case, metric = year.use_case, year.use_case.model.metric
    values = [_value(case, metric, rows)]
    for month in months:
        first, last = month.served["event_time"].iloc[0], month.served["event_time"].iloc[-1]
        values.append(_value(case, metric, rows[rows["event_time"].between(first, last)]))
    return (name, f"{values[0]:.4f}", *(f"{value:.3f}" for value in values[1:]))


def _value(case: UseCase, metric: str, rows: pd.DataFrame) -> float:
    return measure(case.label.task, rows["label"], rows[["probability"]])[metric]


def _notes(year: Year) -> tuple[str, ...]:
    model = year.use_case.model
    return (
        "For information; there is no limit. A model is fitted at each scheduled cutoff on the "
        f"{model.window} before it less the holdout of {model.holdout}, with the labels known by "
        "then, and predicts until the next one; no row was seen by the model that predicts it. "
        "Only what comes from the demo, where `python -m benchmarks demo` left one, passed the "
        "gate; the others serve whether or not they are better than the last.",
        "The logistic regression is given the same columns: numbers with the median for missing "
        f"values and scaled, texts one-hot with categories seen less than {RARE} times as one.",
    )
