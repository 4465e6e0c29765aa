"""Predictions of a range computed by Spark: joined, predicted and written there."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import duckdb

from ml_platform.features import join_sql
from ml_platform.registry import Registry
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Basis, Commit, Lake, Table, Written, replace_windows


def predict_on_spark(
    lake: Lake,
    cursor: duckdb.DuckDBPyConnection,
    registry: Registry,
    use_case: UseCase,
    table: Table,
    champions: Mapping[Window, int],
    window_range: Window,
    commit: Commit,
    basis: Basis,
) -> Written:
    """Replace the predictions of a range by those of its champions; to the bit as in process.

    champions: windows in order of time, with the version that predicts them.
    Raises EngineFailed; then nothing is written.
    """
    from ml_platform.engines.spark.computing import Engine, written_by_spark
    from ml_platform.engines.spark.predicting import Champions, packed, predicted_rows

    named = ", ".join(quote(name) for name in use_case.examples.entity)
    # The same whenever Spark computes a part again, where a random mark would be another one.
    sql = join_sql(
        cursor, lake, use_case, window_range, basis.snapshot, mark=f"row(event_time, {named})"
    )
    models = {
        version: packed(registry.load(use_case, version), registry.pickled(use_case, version))
        for version in set(champions.values())
    }
    versions = Champions.of(use_case, champions, models)

    def rows(engine: Engine) -> Any:
        from pyspark.sql import functions as f

        stamps = {
            "snapshot": f.lit(basis.snapshot).cast("bigint"),
            "scored_at": f.lit(datetime.now(UTC)),
        }
        return predicted_rows(engine.rows(sql), versions).withColumns(stamps)

    with written_by_spark(lake, cursor, use_case, basis, table, rows) as files:
        return replace_windows(
            lake, cursor, table, "", time="event_time", calendar=use_case.calendar,
            window_range=window_range, commit=commit.by_engine("spark"), basis=basis, files=files,
        )  # fmt: skip
