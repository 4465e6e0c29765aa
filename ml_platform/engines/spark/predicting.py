"""Rows predicted by Spark's Python workers, each window by its champion, as in process."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from ml_platform.engines.spark.types import spark_type
from ml_platform.engines.spark.windows import Batches, Windows, with_windows
from ml_platform.errors import ModelRefused
from ml_platform.registry import ModelVersion, is_row_wise, predict
from ml_platform.registry.artifacts import digest_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage.tables import WINDOW_START

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

VERSION = "model_version"


@dataclass(frozen=True)
class PackedModel:
    """A model version as it travels to a worker; what `predict` needs of it."""

    version: int
    digest: str
    """SHA-256 of `pickled`, as it was registered."""
    pickled: bytes
    columns: Mapping[str, str]
    left_out: frozenset[str]
    classes: tuple[str, ...]

    @property
    def estimator(self) -> Any:
        """The estimator; unpickled once a process, where it is the one that was registered."""
        return _unpickled(self.digest, self.pickled)


@lru_cache(maxsize=4)
def _unpickled(digest: str, pickled: bytes) -> Any:
    import cloudpickle

    if digest_of(pickled) != digest:
        raise ModelRefused(f"a model arrived with another digest than {digest[:12]}")
    return cloudpickle.loads(pickled)


def packed(model: ModelVersion, pickled: bytes) -> PackedModel:
    """A version for workers. pickled: the file whose digest the registry holds."""
    return PackedModel(
        model.version, model.digest, pickled, dict(model.columns), frozenset(model.left_out),
        model.classes,
    )  # fmt: skip


@dataclass(frozen=True)
class Champions:
    """Which version predicts each window of a range."""

    use_case: UseCase
    windows: Windows
    """Those that have one."""
    versions: tuple[int, ...]
    models: Mapping[int, PackedModel]

    @classmethod
    def of(
        cls, use_case: UseCase, champions: Mapping[Window, int], models: Mapping[int, PackedModel]
    ) -> "Champions":
        return cls(use_case, Windows.of(list(champions)), tuple(champions.values()), models)


def predicted_rows(rows: "DataFrame", champions: Champions) -> "DataFrame":
    """Entity, event time, prediction columns, `model_version` and `window_start` of joined rows.

    Where the estimators are not known to predict each row by itself, all rows of a window are
    predicted in one call, and so by one worker.
    """
    fields = _output_schema(champions.use_case)
    ddl = ", ".join(f"`{name}` {kind}" for name, kind in fields.items())
    if all(is_row_wise(model.estimator) for model in champions.models.values()):
        return rows.mapInArrow(_by_batch(champions), ddl)
    placed = with_windows(rows, champions.windows)
    return placed.groupBy(WINDOW_START).applyInArrow(_by_window(champions), ddl)


def _output_schema(use_case: UseCase) -> dict[str, str]:
    from ml_platform.features import entity_types

    columns = {
        **entity_types(use_case, use_case.examples.entity),
        "event_time": "TIMESTAMP WITH TIME ZONE",
        **use_case.prediction_columns,
    }
    typed = {name: spark_type(_canonical(kind), name) for name, kind in columns.items()}
    return {**typed, VERSION: "INT", WINDOW_START: "TIMESTAMP_NTZ"}


def _canonical(kind: str) -> str:
    import duckdb

    return str(duckdb.sql(f"SELECT CAST(NULL AS {kind})").types[0])


def _by_batch(champions: Champions) -> Callable[[Batches], Batches]:
    def predict_batches(batches: Batches) -> Batches:
        for batch in batches:
            table = pa.Table.from_batches([batch])
            yield from _predicted(champions, table).to_batches()

    return predict_batches


def _by_window(champions: Champions) -> Callable[[pa.Table], pa.Table]:
    order = ["event_time", *champions.use_case.examples.entity]

    def predict_window(table: pa.Table) -> pa.Table:
        # As the rows of the same window are ordered in process.
        return _predicted(champions, table.sort_by([(name, "ascending") for name in order]))

    return predict_window


def _predicted(champions: Champions, table: pa.Table) -> pa.Table:
    use_case = champions.use_case
    frame: pd.DataFrame = table.to_pandas()
    places = champions.windows.places(frame["event_time"])
    versions = np.array([*champions.versions, 0])[places]
    entity = list(use_case.examples.entity)
    parts = []
    for version in dict.fromkeys(versions[places >= 0].tolist()):
        mask = (versions == version) & (places >= 0)
        found = predict(use_case, champions.models[version], frame[mask])
        parts.append(found.assign(**{VERSION: np.int32(version)}))
    predictions = pd.concat(parts) if parts else _none(use_case)
    kept = table.select([*entity, "event_time"]).take(pa.array(predictions.index.to_numpy("int64")))
    # An instant, however Spark's session shows it.
    times = kept["event_time"].cast(pa.timestamp("us", "UTC"))
    kept = kept.set_column(kept.schema.get_field_index("event_time"), "event_time", times)
    for name in [*use_case.prediction_columns, VERSION]:
        kept = kept.append_column(name, _array(use_case, name, predictions[name]))
    starts = champions.windows.starts[places[predictions.index.to_numpy("int64")]]
    return kept.append_column(WINDOW_START, pa.array(starts, pa.timestamp("us")))


def _none(use_case: UseCase) -> pd.DataFrame:
    return pd.DataFrame({name: [] for name in [*use_case.prediction_columns, VERSION]}, index=[])


def _array(use_case: UseCase, name: str, values: pd.Series) -> pa.Array:
    if name == VERSION:
        return pa.array(values, pa.int32())
    match use_case.prediction_columns[name]:
        case "DOUBLE":
            return pa.array(values, pa.float64())
        case "VARCHAR":
            return pa.array(values, pa.string())
        case _:
            named = [list(each.items()) for each in values]
            return pa.array(named, pa.map_(pa.string(), pa.float64()))
