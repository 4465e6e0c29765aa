"""Requests and answers of the Open Inference Protocol, as JSON has them."""

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from ml_platform.registry import ModelVersion
from ml_platform.serving.datatypes import BOOL, BYTES, LARGEST, NUMPY_TYPES
from ml_platform.serving.http.endpoints import Schema
from ml_platform.serving.tensors import Parameters, TensorMetadata
from ml_platform.spec.queries import is_numeric

Size = Annotated[int, Meta(ge=0)]
DATATYPES = [*NUMPY_TYPES, BYTES]


class InputTensor(Struct, frozen=True):
    """Values of one column; of a model that has numbers only, one tensor may hold all columns."""

    name: str
    shape: list[Size]
    datatype: Annotated[str, Meta(examples=["FP64", BYTES])]
    data: list[Any] | UnsetType = UNSET
    parameters: Parameters | None = None


class RequestedOutput(Struct, frozen=True):
    """An output that is wanted, `binary_data` or as JSON."""

    name: str
    parameters: Parameters | None = None


class InferRequest(Struct, frozen=True):
    """A tensor for each column of the model."""

    inputs: Annotated[list[InputTensor], Meta(min_length=1)]
    id: str | None = None
    outputs: list[RequestedOutput] | None = None
    parameters: Parameters | None = None


class OutputTensor(Struct, frozen=True):
    """Values of one prediction column."""

    name: str
    datatype: str
    shape: Sequence[int]
    data: Sequence[Any] | UnsetType = UNSET
    parameters: Parameters | UnsetType = UNSET


class Inferred(Struct, frozen=True):
    """Predictions."""

    model_name: str
    model_version: Annotated[str, Meta(description="The version that answered.")]
    outputs: list[OutputTensor]
    id: str | UnsetType = UNSET


class ModelMetadata(Struct, frozen=True):
    """Names, types and shapes of what a model takes and yields."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(Struct, frozen=True):
    """Whether a model can be asked."""

    name: str
    ready: bool


class Liveness(Struct, frozen=True):
    """Whether the process answers."""

    live: bool


class Ready(Struct, frozen=True):
    """Whether at least one use case can be asked."""

    ready: bool


class Server(Struct, frozen=True):
    """What answers."""

    name: str
    version: str
    extensions: list[str]


def input_tensors(model: ModelVersion) -> Schema:
    """The tensors of a request for a model: which values, by column and datatype.

    The cases are distinguished by `if`, which tools that make clients pass over: they find one
    type.
    """
    texts = [name for name, kind in model.columns.items() if not is_numeric(kind)]
    tensor = {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"enum": list(model.columns)},
            "shape": {
                "type": "array", "minItems": 1, "maxItems": 2,
                "items": {"type": "integer", "minimum": 0},
            },
            "datatype": {"enum": DATATYPES},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": ["object", "null"]},
        },
        **_by_name(texts, model),
    }  # fmt: skip
    return {"type": "array", "items": tensor, "minItems": len(model.columns)}


def _by_name(texts: Sequence[str], model: ModelVersion) -> dict[str, Any]:
    """What the values of a tensor can be, by its column: null where there were gaps."""
    gaps = [name for name, seen in model.seen.items() if seen.missing]
    filled = {"data": _values({"type": ["string", "number", "boolean"]})}
    return {
        "if": {"properties": {"name": {"enum": texts}}},
        "then": _by_datatype([BYTES]),
        "else": _by_datatype(list(NUMPY_TYPES)),
        "anyOf": [{"properties": {"name": {"enum": gaps}}}, {"properties": filled}],
    }


def _by_datatype(datatypes: Sequence[str]) -> dict[str, Any]:
    """What the values of a tensor can be; of other datatypes than these they are all missing."""
    if not datatypes:
        return {"properties": {"data": _values({"type": "null"})}}
    name, *others = datatypes
    return {
        "if": {"properties": {"datatype": {"const": name}}},
        "then": {"properties": {"data": _values(_value(name))}},
        "else": _by_datatype(others),
    }


def _values(value: Schema) -> Schema:
    """Values one after the other, or in a list for each row."""
    return {"anyOf": [{"items": value}, {"items": {"type": "array", "items": value}}]}


def _value(datatype: str) -> Schema:
    if datatype == BYTES:
        return {"type": ["string", "null"]}
    if datatype == BOOL:
        return {"type": ["boolean", "null"]}
    if datatype in LARGEST:
        most = LARGEST[datatype]
        return {"type": ["number", "null"], "minimum": -most, "maximum": most}
    limits = np.iinfo(NUMPY_TYPES[datatype])
    bounds = {"minimum": int(limits.min), "maximum": int(limits.max)}
    return {"type": ["integer", "null"], **bounds}


def output_tensors(names: Sequence[str]) -> Schema:
    """The tensors of an answer."""
    tensor = {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"enum": list(names)},
            "datatype": {"enum": DATATYPES},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "data": {"type": "array", "items": {}},
            "parameters": {"type": "object"},
        },
    }
    return {"type": "array", "items": tensor}
