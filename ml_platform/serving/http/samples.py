"""Values that examples are made of: those of the model's reference sample, or else made up."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pandas as pd

from ml_platform.features import entity_types, needed_columns
from ml_platform.registry import ModelVersion
from ml_platform.spec.queries import is_time
from ml_platform.spec.use_case import UseCase

PREDICTION = "000601fcbba0d8-0123456789-000612981d875000-0"
"""An id as predictions have it."""
FRACTIONAL = ("DOUBLE", "FLOAT", "REAL", "DECIMAL")


def model_row(model: ModelVersion) -> dict[str, Any]:
    """Columns of the model in the first row of its reference sample."""
    # As plain Python values: numpy's own floats are no JSON.
    row, *_ = model.reference[list(model.columns)].head(1).to_dict("records")
    return {str(name): None if pd.isna(value) else value for name, value in row.items()}


def key_row(use_case: UseCase, model: ModelVersion) -> dict[str, Any]:
    """What a caller knows of a row: columns of the examples' source.

    Made-up times follow one another as their columns do, since rules often say so of them.
    """
    known, needed = model_row(model), needed_columns(use_case)
    first = list(needed).index(use_case.sources[use_case.examples.source].event_time)
    return {
        name: _typed(known[name], kind)
        # Models are given times as numbers, which nobody writes.
        if name in known and not is_time(kind)
        else _made_up(kind, model, place - first)
        for place, (name, kind) in enumerate(needed.items())
    }


def ask_for(document: Mapping[str, Any], rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Let openapi.json's examples ask for rows that are there; rows: by use case, by key."""
    for name, row in rows.items():
        body = document["paths"][f"/predict/{name}"]["post"]["requestBody"]
        body["content"]["application/json"]["example"] = {"rows": [row]}


def labelled(use_case: UseCase, model: ModelVersion) -> dict[str, Any]:
    """A label for a row that is named by entity and time."""
    entity = entity_types(use_case, use_case.examples.entity)
    return {
        **{name: _made_up(kind, model) for name, kind in entity.items()},
        # Of the rows that the model learned from: such a time there has been.
        "event_time": (model.cutoff - timedelta(days=1)).isoformat(),
        "label": label_of(use_case, model),
    }


def label_of(use_case: UseCase, model: ModelVersion) -> bool | str | float:
    """A label that the task has."""
    match use_case.label.task:
        case "binary":
            return True
        case "multiclass":
            return model.classes[0]
        case "regression":
            return 1.5


def _typed(value: Any, kind: str) -> Any:
    # Models are given every number as a float; a whole number is written as one.
    is_whole = isinstance(value, float) and not kind.startswith(FRACTIONAL)
    return int(value) if is_whole else value


def _made_up(kind: str, model: ModelVersion, step: int = 0) -> Any:
    if kind.startswith("TIMESTAMP"):
        return (model.cutoff + timedelta(hours=step)).isoformat()
    if kind == "DATE":
        return (model.cutoff + timedelta(days=step)).date().isoformat()
    if kind == "BOOLEAN":
        return True
    return "1" if kind == "VARCHAR" else 1
