"""What is answered to rows of a batch by reference."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_platform.errors import RequestRefused
from ml_platform.features import InputRules
from ml_platform.registry import ModelVersion, predict
from ml_platform.serving.inputs import check_columns
from ml_platform.spec.use_case import UseCase


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
