"""Score a stored window again from what it was made of, and compare to the bit."""

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from ml_platform.errors import EmptyPartition
from ml_platform.features import assemble, windows_sql
from ml_platform.registry import Registry, predict
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake


@dataclass(frozen=True)
class Reproduction:
    """How many stored predictions came back bit for bit."""

    window: Window
    versions: tuple[int, ...]
    snapshot: int
    rows: int
    different: int

    @property
    def is_exact(self) -> bool:
        return self.different == 0


def reproduce(lake: Lake, registry: Registry, use_case: UseCase, window: Window) -> Reproduction:
    """Recompute a window's predictions from their model version at their snapshot.

    Raises EmptyPartition where nothing was predicted.
    """
    with lake.cursor(use_case.timezone) as cursor:
        stored = _stored(cursor, lake, use_case, window)
        versions = sorted({int(version) for version in stored["model_version"]})
        snapshot = int(stored["snapshot"].iloc[0])
        frame = assemble(cursor, lake, use_case, window, snapshot)
    keys = [*use_case.examples.entity, "event_time"]
    # An endpoint may have changed its version among the rows of a window.
    predicted = [
        frame[keys]
        .join(predict(use_case, registry.load(use_case, version), frame))
        .assign(model_version=np.int32(version))
        for version in versions
    ]
    again = pd.concat(predicted)
    both = stored.merge(
        again, on=[*keys, "model_version"], how="left", suffixes=("", "_again"), indicator=True
    )
    same = both["_merge"] == "both"
    for column in use_case.prediction_columns:
        same &= both[column] == both[f"{column}_again"]
    different = int((~same).sum()) + max(len(frame) - len(stored), 0)
    return Reproduction(window, tuple(versions), snapshot, len(stored), different)


def _stored(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, use_case: UseCase, window: Window
) -> pd.DataFrame:
    relation = lake.relation(cursor, use_case.name, "predictions")
    order = ", ".join(quote(c) for c in ("event_time", *use_case.examples.entity))
    stored = cursor.execute(
        f"FROM {relation} WHERE {windows_sql(use_case, window)} ORDER BY {order}"
    ).fetch_df()
    if stored.empty:
        raise EmptyPartition(f"{use_case.name} has no predictions in {window}")
    return stored
