"""Everything that can be found out about use cases: from what they declare, and stored rows."""

from contextlib import closing, suppress
from pathlib import Path

import duckdb

from ml_platform.cli.elsewhere import continue_where_it_runs, outdated, run_in
from ml_platform.cli.printing import console, show_line
from ml_platform.errors import (
    CalendarChanged,
    ColumnChanged,
    EnvironmentMissing,
    LandingError,
    PlatformError,
    SpecError,
)
from ml_platform.features import feature_view_table, labels_table
from ml_platform.features.too_late import TooLate, find_too_late, find_too_late_landed
from ml_platform.scoring import predictions_table
from ml_platform.settings import Settings
from ml_platform.sources.tables import source_table
from ml_platform.spec.environments import environment_of, is_platforms, runs_here
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake, require_calendar
from ml_platform.storage.tables import require_types


def check(settings: Settings, name: str | None) -> None:
    """Say of each use case, or of one, that it is sound or what is wrong with it.

    Raises PlatformError with all mistakes.
    """
    loaded = load_use_cases(settings.use_cases, settings.databases, settings.derived)
    if name is not None:
        chosen = [loaded.require(name)]
        continue_where_it_runs(settings, chosen[0])
    else:
        chosen = list(loaded.use_cases.values())
        if not chosen and not loaded.broken:
            raise PlatformError(
                f"{settings.use_cases}: no use case is here; write one with `ml-platform new`"
            )
    problems = [] if name else [str(errors) for errors in loaded.broken.values()]
    for use_case in chosen:
        if not runs_here(use_case.name, use_case.folder):
            problems += _check_elsewhere(settings, use_case)
            continue
        if problem := _build(use_case):
            problems.append(str(problem))
            continue
        try:
            warnings = _look(settings, use_case)
        except (CalendarChanged, ColumnChanged) as error:
            problems.append(str(error))
            continue
        _show(use_case)
        for warning in warnings:
            show_line(f"warning: {use_case.name}: {warning}")
    if problems:
        raise PlatformError("\n".join(problems))


def _build(use_case: UseCase) -> SpecError | None:
    from ml_platform.training.fitting import Recipe

    try:
        Recipe.of(use_case).build()
    except SpecError as error:
        return error
    return None


def _check_elsewhere(settings: Settings, use_case: UseCase) -> list[str]:
    """Have a use case checked in the environment that it runs in; what is wrong with it."""
    environment = environment_of(settings, use_case.name, use_case.folder)
    if environment is None:
        show_line(f"{use_case.name}: not checked here, it runs in the platform's environment")
        return []
    try:
        done = run_in(environment, "check", use_case.name)
    except EnvironmentMissing as error:
        return [str(error)]
    for line in done.stdout.splitlines():
        show_line(line)
    if environment.state == "outdated":
        show_line(f"warning: {outdated(environment)}")
    lines = done.stderr.splitlines() if done.returncode else []
    return [line.removeprefix("error: ") for line in lines]


def has_lake(settings: Settings) -> bool:
    """Whether anything may be stored; opening a lake that is not there would make one."""
    kind, _, where = settings.catalog_uri.partition(":")
    return kind != "sqlite" or Path(where).is_file()


def _look(settings: Settings, use_case: UseCase) -> tuple[TooLate, ...]:
    """What rows say against the declaration: those that are stored, else those that have landed.

    Raises CalendarChanged where they lie in windows of another calendar, ColumnChanged where
    columns are stored as other types.
    """
    if has_lake(settings):
        with closing(Lake(settings)) as lake:
            with lake.cursor() as cursor:
                require_calendar(cursor, use_case.name, use_case.calendar)
                stored = lake.tables(cursor, use_case.name)
                _require_types(cursor, use_case)
            if use_case.examples.source in stored:
                return find_too_late(lake, use_case)
    with suppress(LandingError):
        return find_too_late_landed(settings, use_case)
    return ()


def _require_types(cursor: duckdb.DuckDBPyConnection, use_case: UseCase) -> None:
    tables = [
        *(source_table(use_case, source) for source in use_case.sources),
        *(feature_view_table(use_case, view) for view in use_case.features),
        labels_table(use_case),
        predictions_table(use_case),
    ]
    changed = []
    for table in tables:
        try:
            require_types(cursor, table)
        except ColumnChanged as error:
            changed.append(str(error))
    if changed:
        raise ColumnChanged("\n".join(changed))


def _show(case: UseCase) -> None:
    counts = f"{len(case.sources)} sources, {len(case.features)} feature views"
    own = "" if is_platforms() else ", in its own environment"
    what = f"{case.partitions.cadence}, {case.label.task}, {len(case.model_columns)} model columns"
    console().print(f"{case.name}: ok ({counts}, {what}{own})", highlight=False)
