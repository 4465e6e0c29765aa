"""Feature tables, computed by the engine that the use case declares or a launch names."""

from typing import Any

import duckdb

from ml_platform import features
from ml_platform.errors import Location, QueryFailed
from ml_platform.features import Sight, feature_view_table, replace_view, view_sql
from ml_platform.spec.spark_sql import Untranslatable, translate
from ml_platform.spec.use_case import Engine, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, Written


def compute_features(
    lake: Lake,
    use_case: UseCase,
    view: str,
    window_range: Window,
    commit: Commit,
    *,
    engine: Engine | None = None,
) -> Written:
    """As `ml_platform.features.compute_features`, by an engine.

    engine: by default the one that the use case declares. Raises also QueryFailed for a query that
    is not known to mean the same in Spark, with file and line, and EngineFailed.
    """
    if (engine or use_case.engine) != "spark":
        return features.compute_features(lake, use_case, view, window_range, commit)
    _require_translatable(use_case, view)

    return features.compute_features(
        lake, use_case, view, window_range, commit, replacing=_computed_by_spark
    )


def _computed_by_spark(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    window_range: Window,
    commit: Commit,
    basis: Basis,
) -> Written:
    from ml_platform.engines.spark.computing import Engine, written_by_spark
    from ml_platform.engines.spark.windows import Windows, with_windows

    sql = view_sql(lake, cursor, use_case, view, Sight(window_range, basis.snapshot))
    windows = Windows.of(list(use_case.calendar.windows(window_range)))

    def rows(engine: Engine) -> Any:
        return with_windows(engine.rows(sql), windows)

    table = feature_view_table(use_case, view)
    with written_by_spark(lake, cursor, use_case, basis, table, rows) as files:
        return replace_view(
            lake, cursor, use_case, view, window_range, commit.by_engine("spark"), basis, files
        )


def _require_translatable(use_case: UseCase, view: str) -> None:
    try:
        translate(use_case.features[view].query, use_case.timezone)
    except Untranslatable as error:
        where = Location(use_case.view_file(view), error.line)
        raise QueryFailed(
            f"{where}: engine spark: {error}; write it otherwise, or compute '{view}' in process"
        ) from None
