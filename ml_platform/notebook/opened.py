"""What `ml_platform.open` returns."""

from collections.abc import Collection
from datetime import UTC, datetime
from functools import cached_property
from html import escape
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pandas as pd

from ml_platform.backfill.request import with_examples
from ml_platform.errors import FeatureError, PlatformError, RegistryError
from ml_platform.features import join_spine
from ml_platform.masking import named_variables
from ml_platform.monitoring import drift_table, performance_table
from ml_platform.notebook import frames
from ml_platform.notebook.arguments import Moment, Range, read_moment, read_range
from ml_platform.notebook.plotting import Plotting
from ml_platform.notebook.projects import placed
from ml_platform.registry import (
    ChampionPeriod,
    ModelVersion,
    Registry,
    champion_at,
    champion_periods,
    history,
    predict,
)
from ml_platform.registry.tracking import SQLITE
from ml_platform.replay import Backtest, backtest
from ml_platform.scoring.explain import SAMPLES, explain
from ml_platform.scoring.explanations import explanations_table
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import require_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.training.estimator import Hook
from ml_platform.training.training_set import collect

TRY = (
    "training_set(cutoff), features(spine, at=…), predictions(range), labels, score(frame), "
    "backtest(model, range), performance(range), drift(range), plot_performance()"
)


def open_use_case(name: str, project: str | Path | None = None) -> "OpenedUseCase":
    """What `ml_platform.open` does."""
    if not isinstance(name, str):
        raise PlatformError(f"a use case is named by a text, not by a {type(name).__name__}")
    with named_variables("ML_PLATFORM_"):
        settings = Settings()
    settings = placed(settings, project)
    if not settings.use_cases.is_dir():
        raise PlatformError(
            f"there is no folder of use cases {settings.use_cases}; name the project that holds "
            "it, ml_platform.open(…, project=…), or set ML_PLATFORM_USE_CASES"
        )
    use_case = require_use_case(settings.use_cases, name, settings.databases, settings.derived)
    return OpenedUseCase(settings, use_case)


class OpenedUseCase(Plotting):
    """A use case with its lake, attached read-only, and its registry, which is only read.

    Ranges are `2013-06-01...2013-06-30`, one partition, or a pair of the first and the last, both
    included; by default all partitions. Moments are partition keys, times in ISO 8601, dates and
    datetimes; without a zone they are in that of the use case. Every method raises a PlatformError
    that says what is missing or wrong.
    """

    def __init__(self, settings: Settings, use_case: UseCase) -> None:
        self.settings = settings
        self.use_case = use_case
        self.lake = Lake(settings, read_only=True)

    @cached_property
    def registry(self) -> Registry:
        """The model registry; RegistryError where nothing was ever registered."""
        uri = self.settings.tracking_uri
        if uri.startswith(SQLITE) and not Path(file := uri.removeprefix(SQLITE)).exists():
            raise RegistryError(
                f"no model was registered yet: {file} does not exist; train one with "
                f"`ml-platform train {self.use_case.name} --cutoff …`"
            )
        return Registry(self.settings)

    def close(self) -> None:
        """Detach from the lake; it attaches again when it is asked for something."""
        self.lake.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def columns(self) -> pd.DataFrame:
        """What an estimator is given, by `column`, in order: DuckDB `type`, `source`."""
        return frames.read_columns(self.use_case)

    def training_set(self, cutoff: Moment, window: str | None = None) -> pd.DataFrame:
        """The labelled examples that a model trained at a cutoff is given, as known before it.

        window: how far back, such as `30d`; by default `model.window`.
        Returns entity columns, `event_time`, the columns of `columns` (numbers as float64 with NaN,
        all else as text with None), `label`, `label_known_at`, and `part`: `fit` or `holdout`, the
        rows that judge. Raises TrainingFailed where there are too few rows.
        """
        moment = read_moment(self.use_case, cutoff, "cutoff")
        length = None if window is None else _duration(window)
        with self.lake.cursor(self.use_case.timezone) as cursor:
            snapshot = self.lake.snapshot(cursor)
            data = collect(cursor, self.lake, self.use_case, moment, snapshot, length)
        parts = {"fit": data.fitted, "holdout": data.holdout}
        return pd.concat([rows.assign(part=p) for p, rows in parts.items()], ignore_index=True)

    def features(
        self,
        spine: pd.DataFrame,
        *,
        at: Moment | None = None,
        views: Collection[str] | None = None,
    ) -> pd.DataFrame:
        """A frame's rows with the features that were known when each of them happened.

        spine: `event_time` and the key columns of the feature views; other columns are kept.
        at: what was known at this moment instead, for all rows: nothing of a later event time, and
        of what was corrected the version of then. views: by default those that the model is given.
        Returns the spine's rows, in their order and with their index; its columns, then request
        columns where the spine has all that they are computed from, then `<view>__<feature>`.
        """
        moment = None if at is None else read_moment(self.use_case, at, "at")
        return join_spine(self.lake, self.use_case, spine, at=moment, views=views)

    def predictions(
        self, range: Range | None = None, *, known_by: Moment | None = None
    ) -> pd.DataFrame:
        """Stored predictions beside their labels, by event time.

        known_by: labels as they were known before this moment; by default all, as known now.
        Returns entity columns, `event_time`, prediction columns (binary: `probability` of true;
        multiclass: `predicted`, `probabilities`; regression: `predicted`), `label` and
        `label_known_at`, which are empty while it has not arrived, `model_version`, `snapshot` of
        the lake that it was predicted at, `scored_at`.
        """
        by = None if known_by is None else read_moment(self.use_case, known_by, "known_by")
        return frames.read_predictions(self.lake, self.use_case, self.range(range), by)

    def explanations(self, range: Range | None = None) -> pd.DataFrame:
        """Stored explanations, of as many predictions a partition as the use case declares.

        Returns entity columns, `event_time`, `model_version`, `output` (what is explained),
        `prediction`, `base`, `contributions` and their standard `errors` by column, `snapshot`, and
        `partition`. `base` and the contributions add up to the prediction.
        """
        table = explanations_table(self.use_case)
        window_range = self.range(range)
        found = frames.read_reports(self.lake, self.use_case, table, window_range, "event_time")
        for name in ("contributions", "errors"):
            found[name] = found[name].map(dict)
        return found

    @property
    def labels(self) -> pd.DataFrame:
        """Every label that is known now: entity columns, `event_time`, `label`, `label_known_at`.

        The last says from when on it was known.
        """
        return frames.read_labels(self.lake, self.use_case)

    def score(self, frame: pd.DataFrame, version: int | None = None) -> pd.DataFrame:
        """Predict a frame's rows by the function that batches and the service predict by.

        frame: the columns of `columns`, as `features` and `training_set` return them. version: by
        default the champion. Returns the prediction columns, with the frame's index.
        """
        return predict(self.use_case, self._model_for(frame, version, "score"), frame)

    def explain(
        self, frame: pd.DataFrame, version: int | None = None, *, samples: int = SAMPLES
    ) -> pd.DataFrame:
        """What each column contributed to the prediction of each row.

        frame, version: as for `score`. samples: an even number; more take longer and leave smaller
        errors. Returns a row for each row, with its index: `base`, the mean prediction of rows that
        the version was fitted on, a contribution for each column that it was fitted on, in the unit
        of the prediction, and `prediction`, which all of them add up to.
        """
        model = self._model_for(frame, version, "explain")
        found = explain(self.use_case, model, frame, samples=samples)
        names = list(model.fitted_columns)
        rows = [
            {"base": each.base, **each.contributions, "prediction": each.prediction}
            for each in found
        ]
        return pd.DataFrame(rows, index=frame.index, columns=["base", *names, "prediction"])

    def _model_for(self, frame: object, version: object, what: str) -> ModelVersion:
        """The version that is asked for, which a frame has the columns of."""
        name = self.use_case.name
        if not isinstance(frame, pd.DataFrame):
            raise FeatureError(
                f"{name}: rows to {what} are a pandas DataFrame, not a {type(frame).__name__}"
            )
        if version is None:
            version = self.champion
        if not isinstance(version, int) or isinstance(version, bool):
            kind = type(version).__name__
            raise PlatformError(f"{name}: a version is a number such as 3, not a {kind}")
        model = self.registry.load(self.use_case, version)
        missing = [column for column in model.fitted_columns if column not in frame]
        if missing:
            shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" * (len(missing) > 5))
            raise FeatureError(
                f"{name}: version {version} was fitted on {shown}, which these rows lack; "
                "`features(rows)` joins features to rows"
            )
        return model

    def backtest(
        self,
        model: Any = None,
        range: Range | None = None,
        *,
        fit: Hook | None = None,
        retrain: str | None = None,
    ) -> Backtest:
        """Hold an estimator of yours against the champions of a range of history, leak-free.

        model: a scikit-learn compatible estimator, or a function that returns one; by default that
        of the use case. fit: a function that fits it, as `model.fit` of a use case does: see
        docs/estimators.md. It is trained at the start of the range, and again whenever `retrain`
        says: `schedule`, `every:30d` or `never`, by default `model.schedule`; each time on what was
        known before the cutoff alone. Each partition is predicted by it and by its champion, on the
        same rows. See `Backtest` for what is returned; its `answer` is a sentence.
        """
        return backtest(
            self.lake, self.registry, self.use_case, self.range(range), model,
            fit=fit, retrain=retrain, threads=self.settings.threads,
        )  # fmt: skip

    def performance(self, range: Range | None = None) -> pd.DataFrame:
        """Performance reports: a row for each partition, `revision` and `metric`.

        `partition`, `window_at`, `revision` (`first` as first reported, `current` by all labels
        known at the report), `metric`, `value`, `status`, `passed` (its bounds), `rows`,
        `labelled`, `coverage`, `model_versions`, `labels_known_by`, `snapshot`.
        """
        table = performance_table(self.use_case)
        return frames.read_reports(self.lake, self.use_case, table, self.range(range))

    def drift(self, range: Range | None = None) -> pd.DataFrame:
        """Drift reports: a row for each partition and column that is watched.

        `partition`, `window_at`, `column_name`, `kind`, `method`, `score`, `threshold`, `drifted`,
        `status`, `current_rows`, `reference_rows`, shares of nulls, `reference_version`, `snapshot`
        and others: see docs/use_cases.md.
        """
        table = drift_table(self.use_case)
        return frames.read_reports(self.lake, self.use_case, table, self.range(range))

    @property
    def history(self) -> pd.DataFrame:
        """Decisions about model versions, in order.

        `version`, `decision`, `effective_from`, `decided_at`, `decided_by`, `reason`.
        """
        return frames.read_history(history(self.lake, self.use_case), self.use_case)

    @property
    def champion(self) -> int:
        """The version that serves now; NoChampion where none does."""
        return champion_at(history(self.lake, self.use_case), datetime.now(UTC))

    def champion_periods(self) -> list[ChampionPeriod]:
        """Which version served from when on."""
        return champion_periods(history(self.lake, self.use_case))

    def range(self, given: Range | None = None) -> Window:
        """A range as a window of event time; by default from the first partition to the newest."""
        if given is None:
            return with_examples(self.lake, self.use_case)
        return read_range(self.use_case, given)

    def __repr__(self) -> str:
        rows = "\n".join(f"  {name:<12}{value}" for name, value in self._facts().items())
        return f"{self.use_case.name}: {self.use_case.description}\n{rows}"

    def _repr_html_(self) -> str:
        cell = "<td style='text-align:left'>"
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>{cell}{escape(value)}</td></tr>"
            for name, value in self._facts().items()
        )
        title = f"<b>{escape(self.use_case.name)}</b>: {escape(self.use_case.description)}"
        return f"<p>{title}</p><table>{rows}</table>"

    def _facts(self) -> dict[str, str]:
        case, partitions = self.use_case, self.use_case.partitions
        columns = len(case.model_columns)
        try:
            champion, scored = self._champion_line(), self._predictions_line()
        except PlatformError as error:
            # What is shown of an object never fails, but says why it says so little.
            champion = scored = str(error)
        return {
            "label": f"{case.label.task}, compared by {case.model.metric}",
            "columns": f"{columns}, of {len(case.model_views)} feature views and the request",
            "partitions": f"{partitions.cadence} from {partitions.start}, {case.timezone}",
            "predictions": scored,
            "champion": champion,
            "try": TRY,
        }

    def _champion_line(self) -> str:
        periods = self.champion_periods()
        if not periods:
            return "none yet; train a model and have it promoted"
        since = periods[-1].since.astimezone(self.use_case.calendar.timezone)
        return f"version {periods[-1].version}, since {since.isoformat()}"

    def _predictions_line(self) -> str:
        found = frames.stored_range(self.lake, self.use_case, "predictions")
        return f"{found[1]:,} rows in {found[0]}" if found else "none yet"


def _duration(text: str) -> Duration:
    try:
        return Duration.parse(text)
    except (TypeError, ValueError, AttributeError) as error:
        raise PlatformError(f"window: {error}") from None
