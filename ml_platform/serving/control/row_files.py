"""Files of rows to predict, and what is answered to them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.errors import ParameterRefused, RequestRefused
from ml_platform.features import InputRules
from ml_platform.registry import ModelVersion, predict
from ml_platform.serving.inputs import check_columns
from ml_platform.spec.use_case import UseCase


def count_rows(source: Path, target: Path) -> int:
    """How many rows a file has, at least one.

    ParameterRefused where it has none, is no Parquet, or answers are there already.
    """
    if target.exists():
        raise ParameterRefused("answers", f"'{target.name}' is there already; name another file")
    try:
        count = int(pq.read_metadata(source).num_rows)
    except FileNotFoundError:
        raise ParameterRefused("rows", f"there is no file '{source.name}'") from None
    except (OSError, pa.ArrowException) as error:
        raise ParameterRefused("rows", f"'{source.name}' is no Parquet: {error}") from None
    if not count:
        raise ParameterRefused("rows", f"'{source.name}' has no rows")
    return count


def chunks_of(source: Path, rows: int) -> Iterator[pa.Table]:
    """The rows of a file in order, so many at once."""
    with pq.ParquetFile(source) as file:
        for batch in file.iter_batches(rows):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])


def answered_rows(
    case: UseCase, model: ModelVersion, rules: InputRules, batch: pa.Table, first: int
) -> pa.Table:
    """Rows with their predictions; RequestRefused says from which row on it counts rows."""
    for name in (*case.prediction_columns, "model_version"):
        if name in batch.column_names:
            raise RequestRefused("is a column of the answers; rename it", name)
    given = {n: _values(batch.column(n)) for n in model.columns if n in batch.column_names}
    try:
        inputs = check_columns(model, given, known_categories=case.serving.known_categories)
        rules.check(inputs.columns)
    except RequestRefused as error:
        raise RequestRefused(f"of the rows from {first} on, {error}") from None
    predicted = predict(case, model, inputs.frame())
    for name, kind in case.prediction_columns.items():
        batch = batch.append_column(name, _column(predicted[name], kind))
    version = np.full(len(batch), model.version, dtype=np.int32)
    return batch.append_column("model_version", pa.array(version))


def _values(column: pa.ChunkedArray) -> Any:
    if pa.types.is_decimal(column.type):
        column = column.cast(pa.float64())
    if pa.types.is_floating(column.type) and not column.null_count:
        return column.to_numpy()
    return column.to_pylist()


def _column(values: pd.Series, kind: str) -> pa.Array:
    if kind.startswith("MAP"):
        pairs = [list(row.items()) for row in values]
        return pa.array(pairs, pa.map_(pa.string(), pa.float64()))
    return pa.array(values.to_numpy(), pa.string() if kind == "VARCHAR" else pa.float64())
