"""What each column contributed to some predictions of each partition, stored beside them."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from ml_platform.errors import ModelRefused
from ml_platform.features import entity_types, split_by_window
from ml_platform.registry import Registry
from ml_platform.scoring.explain import explain
from ml_platform.spec.use_case import EXPLANATIONS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Table


def explanations_table(use_case: UseCase) -> Table:
    """Where explanations are kept: a row for each explained prediction.

    `base` and all of `contributions`, by column, add up to `prediction`; `errors` are the standard
    errors of the contributions, from sampling.
    """
    return Table(
        schema=use_case.name,
        name=EXPLANATIONS,
        columns={
            **entity_types(use_case, use_case.examples.entity),
            "event_time": "TIMESTAMPTZ",
            "model_version": "INTEGER",
            "output": "VARCHAR",
            "prediction": "DOUBLE",
            "base": "DOUBLE",
            "contributions": "MAP(VARCHAR, DOUBLE)",
            "errors": "MAP(VARCHAR, DOUBLE)",
            "snapshot": "BIGINT",
        },
        order=("event_time", *use_case.examples.entity),
        stamps=("snapshot",),
    )


def explained_rows(
    registry: Registry,
    use_case: UseCase,
    frame: pd.DataFrame,
    versions: Mapping[Window, int],
    snapshot: int,
) -> pd.DataFrame:
    """Rows of the table for windows of an assembled frame, each by the version that predicts it.

    As many rows of each window as `monitoring.explanations` says, chosen by a hash of their key, so
    that a window yields the same ones alone and in a range. Raises what `explain` raises.
    """
    columns = list(explanations_table(use_case).columns)
    keys = [*use_case.examples.entity, "event_time"]
    parts = []
    for window, rows in split_by_window(frame, list(versions)):
        hashed = pd.util.hash_pandas_object(rows[keys], index=False).sort_values(kind="stable")
        chosen = rows.loc[hashed.index[: use_case.monitoring.explanations]]
        model = registry.load(use_case, versions[window])
        try:
            found = explain(use_case, model, chosen)
        except ModelRefused as error:
            raise ModelRefused(f"{error}; such a model has no `monitoring.explanations`") from None
        parts.append(
            chosen[keys].assign(
                model_version=versions[window],
                output=[each.output for each in found],
                prediction=[each.prediction for each in found],
                base=[each.base for each in found],
                contributions=_maps(each.contributions for each in found).to_numpy(),
                errors=_maps(each.errors for each in found).to_numpy(),
                snapshot=snapshot,
            )
        )
    return pd.concat(parts)[columns] if parts else pd.DataFrame(columns=columns)


def _maps(values: Iterable[Mapping[str, float]]) -> "pd.Series[Any]":
    """Maps as DuckDB reads them from a frame: keys and values."""
    found = [{"key": list(each), "value": list(each.values())} for each in values]
    return pd.Series(found, dtype=object)
