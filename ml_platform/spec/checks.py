"""What a schema cannot say: names that must exist, times that must fit, functions in files."""

import ast
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from ml_platform.spec.declared import METRICS
from ml_platform.spec.inputs import Source
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.origins import check_origin, check_table
from ml_platform.spec.published import check_pipelines
from ml_platform.spec.retained import check_retention
from ml_platform.spec.spark_sql import Untranslatable, translate
from ml_platform.spec.use_case import (
    KNOWN_FROM,
    KNOWN_UNTIL,
    PLATFORM,
    RESERVED_TABLES,
    UseCase,
    feature_table,
    published_table,
    version_table,
)
from ml_platform.spec.values import first_repeated, suggest, unknown
from ml_platform.spec.windows import Cadence, utc
from ml_platform.spec.yaml_text import PathInDocument

# Columns that the platform's own tables have beside those of a use case.
STAMPS = frozenset(
    {
        "window_start", "_snapshot", "model_version", "snapshot", "scored_at", "label_known_at",
        KNOWN_FROM, KNOWN_UNTIL,
    }
)  # fmt: skip
IN_SOURCES = frozenset({"window_start", "_snapshot", "_file", "_row", KNOWN_FROM, KNOWN_UNTIL})
IN_EXAMPLES = STAMPS | {"event_time", "label", "known_at", "probability", "predicted"}
CRON_FIELDS = 5
SCHEMAS = frozenset({"main", "temp", "system", "information_schema", "pg_catalog"})


def check(use_case: UseCase, mistakes: Mistakes, databases: Collection[str] | None = None) -> None:
    """Everything that needs no database; raises SpecErrors with all that is wrong.

    databases: names that `table:` of a source may begin with; by default any.
    """
    _check_tables(use_case, mistakes)
    for name, source in use_case.sources.items():
        _check_source(("sources", name), source, mistakes)
        check_origin(("sources", name), source, mistakes, databases)
    _check_examples(use_case, mistakes)
    _check_model(use_case, mistakes)
    _check_metrics(use_case, mistakes)
    _check_causes(use_case, mistakes)
    _check_gate(use_case, mistakes)
    _check_times(use_case, mistakes)
    _check_functions(use_case, mistakes)
    _check_publications(use_case, mistakes, databases)
    _check_explanations(use_case, mistakes)
    check_pipelines(use_case, mistakes)
    check_retention(use_case, mistakes)
    mistakes.stop()


def check_watched(use_case: UseCase, mistakes: Mistakes) -> None:
    """Columns that are named to be watched exist, now that it is known what queries yield."""
    columns = use_case.watched_columns
    for index, column in enumerate(use_case.retrain.columns or ()):
        _known(("retrain", "columns", index), [column], columns, mistakes)
    for index, column in enumerate(use_case.monitoring.segments.columns):
        path = ("monitoring", "segments", "columns", index)
        if column not in use_case.examples.request:
            mistakes.add(path, unknown("request column", column, use_case.examples.request))
    drift = use_case.monitoring.drift
    for key in ("thresholds", "null_thresholds"):
        for column in getattr(drift, key):
            _known(("monitoring", "drift", key, column), [column], columns, mistakes)
    mistakes.stop()


def _check_tables(case: UseCase, mistakes: Mistakes) -> None:
    if case.name in SCHEMAS:
        mistakes.add(("name",), f"'{case.name}' is a schema of DuckDB; give it another name")
    if case.name == PLATFORM:
        problem = f"'{case.name}' is the schema of the platform's own tables; give it another name"
        mistakes.add(("name",), problem)
    tables = {feature_table(view) for view in case.features}
    tables |= {version_table(table) for table in (*case.sources, *tables, "labels")}
    tables |= set(map(published_table, case.publish))
    for view in case.features:
        if feature_table(view) in RESERVED_TABLES:
            problem = f"'{feature_table(view)}' is a table of the platform; rename the view"
            mistakes.add(("features", view), problem)
    for name in case.sources:
        if name in RESERVED_TABLES or name in tables:
            problem = f"'{name}' is a table of the platform; rename it, such as '{name}_source'"
            mistakes.add(("sources", name), problem)


def _check_source(path: PathInDocument, source: Source, mistakes: Mistakes) -> None:
    named = {"event_time": [source.event_time], "key": source.key, "required": source.required}
    if source.corrected_at:
        named["corrected_at"] = [source.corrected_at]
    for key, names in named.items():
        _known((*path, key), names, source.columns, mistakes)
    for column in IN_SOURCES & source.columns.keys():
        problem = f"'{column}' is a column of the platform; rename it in the files"
        mistakes.add((*path, "columns", column), problem)
    if twice := first_repeated(column.lower() for column in source.columns):
        column = next(column for column in source.columns if column.lower() == twice)
        problem = f"'{column}' is there in another spelling too; DuckDB ignores case"
        mistakes.add((*path, "columns", column), problem)
    if "known_at" in source.columns and source.known_at != "known_at":
        problem = "is about a column of that name; write `known_at: known_at`"
        mistakes.add((*path, "known_at"), problem)


def _check_publications(
    case: UseCase, mistakes: Mistakes, databases: Collection[str] | None
) -> None:
    taken: dict[str, str] = {}
    for name, publication in case.publish.items():
        path = ("publish", name, "table")
        check_table(path, publication.table, mistakes, databases)
        if other := taken.get(publication.table):
            problem = f"'{publication.table}' is that of '{other}' already; give each a table"
            mistakes.add(path, problem)
        taken[publication.table] = name


def _check_explanations(case: UseCase, mistakes: Mistakes) -> None:
    """Explanations ask the registered version, in process, for many rows of each one."""
    if not case.monitoring.explanations:
        return
    path = ("monitoring", "explanations")
    if case.engine == "spark":
        mistakes.add(path, "engine spark writes none: they are computed in process")
    if case.scored_by_any_version:
        problem = "no registered version is known that predicts: set `scorer.version` or none"
        mistakes.add(path, problem)


def check_engine(case: UseCase, mistakes: Mistakes) -> None:
    """Queries are known to mean the same in Spark, where that is to compute them."""
    if case.engine != "spark":
        return
    if case.scorer is not None:
        problem = "'spark' predicts itself, and `scorer` names an endpoint that does; remove one"
        mistakes.add(("engine",), problem)
    for view, declared in case.features.items():
        try:
            translate(declared.query, case.timezone)
        except Untranslatable as error:
            mistakes.add_in(case.view_file(view), error.line, f"engine spark: {error}")
    mistakes.stop()


def _check_examples(case: UseCase, mistakes: Mistakes) -> None:
    source = case.sources.get(case.examples.source)
    if source is None:
        problem = unknown("source", case.examples.source, case.sources)
        mistakes.add(("examples", "source"), problem)
    else:
        _known(("examples", "entity"), case.examples.entity, source.columns, mistakes)
    for column in IN_EXAMPLES & set(case.examples.entity):
        problem = f"'{column}' is a column of the platform; name another one"
        mistakes.add(("examples", "entity"), problem)


def _check_model(case: UseCase, mistakes: Mistakes) -> None:
    for index, view in enumerate(case.model.features or ()):
        if view not in case.features:
            problem = unknown("feature view", view, case.features)
            mistakes.add(("model", "features", index), problem)
    _check_metric(case, ("model", "metric"), case.model.metric, mistakes)
    if case.model.fit is None and case.model.validation is not None:
        problem = "nothing looks at it without `fit: model:fit`, a function that is given it"
        mistakes.add(("model", "validation"), problem)
    if not case.examples.columns and not case.model_views:
        mistakes.add(("examples",), "the model is given nothing; add `columns:`, or features")


def _check_metrics(case: UseCase, mistakes: Mistakes) -> None:
    performance, path = case.monitoring.performance, ("monitoring", "performance", "bounds")
    for metric, bounds in performance.bounds.items():
        _check_metric(case, (*path, metric), metric, mistakes)
        if not str(bounds):
            mistakes.add((*path, metric), "bounds nothing; give it `min: …` or `max: …`")
        if metric == case.model.metric and (performance.min, performance.max) != (None, None):
            problem = f"'{metric}' is the model's metric, which `min` and `max` bound already"
            mistakes.add((*path, metric), f"{problem}; keep one of both")
    bounded = performance.bounds_by(case.model.metric)
    for index, metric in enumerate(case.retrain.metrics or ()):
        if metric not in bounded:
            problem = f"'{metric}' has no bounds in monitoring.performance"
            mistakes.add(("retrain", "metrics", index), problem + suggest(metric, bounded))


def _check_causes(case: UseCase, mistakes: Mistakes) -> None:
    bounded = case.monitoring.performance.bounds_by(case.model.metric)
    if "performance" in case.retrain.on and not bounded:
        problem = "'performance' can never fail: no metric has a bound"
        mistakes.add(("retrain", "on"), f"{problem}; set `monitoring.performance: {{min: …}}`")


def _check_metric(case: UseCase, path: PathInDocument, metric: str, mistakes: Mistakes) -> None:
    metrics = METRICS[case.label.task]
    if metric not in metrics:
        problem = f"'{metric}' does not measure a {case.label.task} label"
        mistakes.add(path, problem + suggest(metric, metrics))


def _check_gate(case: UseCase, mistakes: Mistakes) -> None:
    for metric in case.gate.guards:
        path = ("gate", "guards", metric)
        _check_metric(case, path, metric, mistakes)
        if metric == case.model.metric:
            problem = f"'{metric}' is what the gate compares anyway; use min_improvement"
            mistakes.add(path, problem)
    if case.gate.segments and case.gate.segment_tolerance is None:
        problem = f"need `segment_tolerance: …`, how much worse {case.model.metric} may be in one"
        mistakes.add(("gate", "segments"), problem)


def _check_times(case: UseCase, mistakes: Mistakes) -> None:
    model, start, zone = case.model, case.calendar.start, case.calendar.timezone
    if case.partitions.cadence is Cadence.hourly and not case.calendar.changes_by_whole_hours():
        problem = f"the clocks of '{zone}' change by less than an hourly window; use UTC"
        mistakes.add(("partitions", "timezone"), problem)
    closes = case.partitions.closes_at
    if closes and closes.astimezone(UTC) <= start.astimezone(UTC):
        problem = f"'{case.partitions.end}' leaves not one window after '{case.partitions.start}'"
        mistakes.add(("partitions", "end"), f"{problem}; take a later one, or none")
    schedules = case.schedules
    for path, expression in (
        (("model", "schedule"), model.schedule),
        (("schedules", "scoring"), schedules.scoring),
        (("schedules", "catch_up"), schedules.catch_up),
    ):
        if expression is not None:
            _check_cron(path, expression, start, mistakes)
    _check_lengths(case, mistakes)


def _check_lengths(case: UseCase, mistakes: Mistakes) -> None:
    """What no data and no cutoff can make up for: lengths that leave nothing to fit or judge on."""
    model, start, zone = case.model, case.calendar.start, case.calendar.timezone
    holdout, horizon = model.holdout.before(start, zone), case.label.horizon
    known = f"labels are known '{horizon}' after a window's end"
    if holdout >= horizon.before(start, zone) and horizon.count:
        problem = f"'{model.holdout}' ends before its labels are there: {known}"
        mistakes.add(("model", "holdout"), f"{problem}; take more than '{horizon}'")
    unlabelled = horizon.before(holdout, zone)
    if model.window.before(start, zone) >= holdout:
        problem = f"'{model.holdout}' leaves nothing to train on of a window of '{model.window}'"
        mistakes.add(("model", "holdout"), f"{problem}; shorten it")
    if model.fit:
        _check_validation(case, holdout, mistakes)
    window = case.retrain.window
    if window and window.before(start, zone) >= holdout:
        problem = f"'{window}' is no longer than the holdout of '{model.holdout}'"
        mistakes.add(("retrain", "window"), f"{problem}, so that nothing is left to train on")
    for path, length in ((("model", "window"), model.window), (("retrain", "window"), window)):
        if length and holdout > length.before(start, zone) >= unlabelled:
            problem = f"'{length}' leaves no row to train on before the holdout of"
            mistakes.add(
                path, f"{problem} '{model.holdout}' whose label is known: {known}; lengthen it"
            )
    closes = case.partitions.closes_at
    if closes and utc(model.holdout.before(closes, zone)) <= utc(start) < utc(closes):
        problem = f"'{model.holdout}' is all of the history, {case.partitions.reach}"
        mistakes.add(("model", "holdout"), f"{problem}, so that nothing is left to train on")


def _check_validation(case: UseCase, holdout: datetime, mistakes: Mistakes) -> None:
    """Lengths that leave `fit` nothing to validate on before the holdout, or to fit on before."""
    model, start, zone = case.model, case.calendar.start, case.calendar.timezone
    length, horizon = model.validated_by, case.label.horizon
    validation, unlabelled = length.before(holdout, zone), horizon.before(holdout, zone)
    # As long as the holdout it is long enough where that is.
    if model.validation and validation >= unlabelled and horizon.count:
        problem = f"'{length}' ends before its labels are there: labels are known '{horizon}' after"
        problem = f"{problem} a window's end; take more than '{horizon}'"
        mistakes.add(("model", "validation"), problem)
    fitted = horizon.before(validation, zone)
    for name, window in (("model", model.window), ("retrain", case.retrain.window)):
        if window and unlabelled > window.before(start, zone) >= fitted:
            problem = f"'{window}' leaves no row to fit on whose label is known before the"
            problem = f"{problem} validation of '{length}' and the holdout of '{model.holdout}'"
            mistakes.add((name, "window"), f"{problem}; lengthen it, or shorten model.validation")


def _check_functions(case: UseCase, mistakes: Mistakes) -> None:
    _check_python(case, ("model", "build"), case.model.build, mistakes)
    if case.model.fit and case.model.fit.partition(":")[0] != case.model.build.partition(":")[0]:
        problem = f"'{case.model.fit}' should be in {case.model_file}, beside `build`"
        mistakes.add(("model", "fit"), f"{problem}: one file says how the model is made")
    elif case.model.fit:
        _check_python(case, ("model", "fit"), case.model.fit, mistakes)
    for name, source in case.sources.items():
        if source.python:
            _check_python(case, ("sources", name, "python"), source.python, mistakes)


def _check_python(case: UseCase, path: PathInDocument, named: str, mistakes: Mistakes) -> None:
    """A function of a file that is named as `<file>:<function>` is there."""
    module, _, function = named.partition(":")
    file = case.folder / f"{module}.py"
    if not file.is_file():
        near = suggest(file.name, sorted(other.name for other in case.folder.glob("*.py")))
        mistakes.add(path, f"there is no file '{file.name}' in {case.folder}{near}")
        return
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except SyntaxError as error:
        mistakes.add_in(file, error.lineno, f"not Python: {error.msg}")
        return
    except ValueError as error:
        mistakes.add_in(file, None, f"not Python: {error}")
        return
    functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in functions:
        mistakes.add(path, f"{file.name} has {unknown('function', function, functions)}")


def _known(
    path: PathInDocument, names: Iterable[str], columns: Iterable[str], mistakes: Mistakes
) -> None:
    for name in names:
        if name not in columns:
            mistakes.add(path, unknown("column", name, columns))


def _check_cron(path: PathInDocument, expression: str, start: datetime, mistakes: Mistakes) -> None:
    try:
        if len(expression.split()) != CRON_FIELDS:
            raise CronSimError("not five fields")
        CronSim(expression, start)
    except CronSimError as error:
        example = "'0 5 1 * *' is 5:00 on the first of each month"
        mistakes.add(path, f"'{expression}' is not a valid cron expression ({error}); {example}")
