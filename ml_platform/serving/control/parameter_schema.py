"""The parameters of a pipeline as JSON Schema, for openapi.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_platform.serving.control.given import LONGEST_KEY
from ml_platform.spec.locations import LONGEST
from ml_platform.spec.pipelines import CountBounds, Pipeline, ShareBounds, WindowBounds
from ml_platform.spec.use_case import UseCase

_KEY = {"type": ["string", "null"], "minLength": 1, "maxLength": LONGEST_KEY}
_TRAIN = {
    "cutoff": {
        **_KEY,
        "description": "Partition at whose start the known world ends; the newest by default.",
    }
}
_RANGE = {
    "from": {**_KEY, "description": "First partition; by default that of `to`, or the newest."},
    "to": {**_KEY, "description": "Last partition; by default that of `from`."},
}


def schema_of(case: UseCase, pipeline: Pipeline) -> dict[str, Any]:
    """An object with a property for each parameter that a caller may give."""
    declared = pipeline.parameters
    times = _TRAIN if pipeline.run == "train" else _RANGE
    properties: dict[str, Any] = {name: dict(schema) for name, schema in times.items()}
    if declared.partitions and declared.partitions.most:
        said = f" A range has {declared.partitions.most} partitions at most."
        said += f" {declared.partitions.description}" if declared.partitions.description else ""
        properties["to"]["description"] += said
    if declared.window is not None:
        properties["window"] = _window(case, declared.window)
    if declared.sample is not None:
        properties["sample"] = _share(declared.sample)
    if declared.sample_rows is not None:
        properties["sample_rows"] = _rows(declared.sample_rows)
    if declared.locations:
        properties["locations"] = _locations(declared.locations)
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _window(case: UseCase, bounds: WindowBounds) -> dict[str, Any]:
    parts = [f"at {w} {b}" for w, b in (("least", bounds.least), ("most", bounds.most)) if b]
    said = ", ".join(["Length of the training set, holdout included", *parts])
    return {
        "type": ["string", "null"],
        "pattern": "^[0-9]+(m|h|d|w|mo)$",
        "maxLength": 20,
        "description": bounds.description or f"{said}; 90m, 3h, 7d, 2w or 1mo.",
        "default": str(bounds.default or case.model.window),
    }


def _share(bounds: ShareBounds) -> dict[str, Any]:
    least = {"exclusiveMinimum": 0} if bounds.least is None else {"minimum": bounds.least}
    return {
        "type": ["number", "null"],
        **least,
        "maximum": bounds.most,
        "description": bounds.description
        or "Share of the rows before the holdout that are fitted on.",
        **_default(bounds.default),
    }


def _rows(bounds: CountBounds) -> dict[str, Any]:
    return {
        "type": ["integer", "null"],
        "minimum": bounds.least,
        **({} if bounds.most is None else {"maximum": bounds.most}),
        "description": bounds.description
        or "Number of rows before the holdout that are fitted on, at most.",
        **_default(bounds.default),
    }


def _locations(declared: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    return {
        "type": ["object", "null"],
        "additionalProperties": False,
        "description": "By source, the folder in which its files are looked for.",
        "properties": {
            source: {
                "type": "string",
                "minLength": 1,
                "maxLength": LONGEST,
                "description": "One of these, or a folder below: " + ", ".join(folders),
            }
            for source, folders in declared.items()
        },
    }


def _default(value: float | None) -> dict[str, Any]:
    return {} if value is None else {"default": value}
