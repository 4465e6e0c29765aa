"""Tensors of the Open Inference Protocol: types, shapes, and their binary form."""

import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from ml_platform.errors import RequestRefused
from ml_platform.registry import ModelVersion
from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.datatypes import (
    BYTES,
    NUMPY_TYPES,
    check_values,
    numpy_type,
    read_numbers,
)
from ml_platform.serving.inputs import Values
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

Parameters = dict[str, Any]
LENGTH = struct.Struct("<I")
"""What stands before each text of a binary BYTES tensor."""


@dataclass(frozen=True)
class Tensor:
    """Values in row-major order under a name."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Values


class TensorMetadata(Struct, frozen=True):
    """Metadata of a tensor that a model takes or yields; of a shape, -1 is the number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Parameters | UnsetType = UNSET


def columns_of(tensors: Iterable[Tensor], model: ModelVersion) -> dict[str, Values]:
    """The values of each column.

    A tensor is a column by its name. A single tensor of another name and of shape [n, k] holds
    all k columns of a model that has numbers only, in the model's order. Values have to be of the
    tensor's datatype. Raises RequestRefused.
    """
    given = list(tensors)
    for tensor in given:
        _check(tensor)
    if len(given) == 1 and given[0].name not in model.columns and len(given[0].shape) == 2:
        return _split(given[0], model)
    columns: dict[str, Values] = {}
    for tensor in given:
        if tensor.name in columns:
            raise RequestRefused("is there twice", tensor.name[:60])
        if len(tensor.shape) != 1 and tensor.shape[1:] != (1,):
            shape = list(tensor.shape)
            raise RequestRefused(f"has shape {shape}, not [n] or [n, 1]", tensor.name[:60])
        check_values(tensor.name, tensor.datatype, tensor.values)
        columns[tensor.name] = tensor.values
    return columns


def describe_inputs(model: ModelVersion) -> list[TensorMetadata]:
    """Metadata of the columns that a model is given."""
    return [
        TensorMetadata(name, "FP64" if is_numeric(kind) else BYTES, [-1])
        for name, kind in model.columns.items()
    ]


def describe_outputs(case: UseCase, model: ModelVersion) -> list[TensorMetadata]:
    """Metadata of what a model yields."""
    described = []
    for name, kind in case.prediction_columns.items():
        if kind.startswith("MAP"):
            shape, parameters = [-1, len(model.classes)], {"classes": ",".join(model.classes)}
            described.append(TensorMetadata(name, "FP64", shape, parameters))
        else:
            described.append(TensorMetadata(name, BYTES if kind == "VARCHAR" else "FP64", [-1]))
    return described


def tensors_of(answer: Predictions) -> Iterator[Tensor]:
    """An answer's prediction columns; probabilities of classes are one tensor of shape [n, k]."""
    for name, kind in answer.use_case.prediction_columns.items():
        values = answer.columns[name]
        if kind.startswith("MAP"):
            classes = answer.model.classes
            flat = [row[label] for row in values for label in classes]
            yield Tensor(name, "FP64", (answer.rows, len(classes)), flat)
        elif kind == "VARCHAR":
            yield Tensor(name, BYTES, (answer.rows,), values.tolist())
        else:
            yield Tensor(name, "FP64", (answer.rows,), values.tolist())


def read_binary(name: str, datatype: str, data: bytes) -> Values:
    """Values from the binary form of a tensor; RequestRefused where it is none."""
    if datatype == BYTES:
        return list(_texts(name, data))
    return read_numbers(name, datatype, data)


def write_binary(tensor: Tensor) -> bytes:
    """The binary form of a tensor."""
    if tensor.datatype != BYTES:
        return np.asarray(tensor.values, NUMPY_TYPES[tensor.datatype]).tobytes()
    texts = [str(value).encode() for value in tensor.values]
    return b"".join(LENGTH.pack(len(text)) + text for text in texts)


def _texts(name: str, data: bytes) -> Iterator[str]:
    place = 0
    while place < len(data):
        if place + LENGTH.size > len(data):
            raise RequestRefused("its binary data ends within a length", name[:60])
        (length,) = LENGTH.unpack_from(data, place)
        place += LENGTH.size
        if place + length > len(data):
            raise RequestRefused("its binary data ends within a text", name[:60])
        yield decode(name, data[place : place + length])
        place += length


def decode(name: str, text: bytes) -> str:
    """A text of a BYTES tensor; RequestRefused where it is not UTF-8."""
    try:
        return text.decode()
    except UnicodeDecodeError:
        raise RequestRefused("holds bytes that are not UTF-8", name[:60]) from None


def _check(tensor: Tensor) -> None:
    if tensor.datatype != BYTES:
        numpy_type(tensor.name, tensor.datatype)
    if not 1 <= len(tensor.shape) <= 2:
        raise RequestRefused(
            f"has {len(tensor.shape)} dimensions; a column has one", tensor.name[:60]
        )
    if math.prod(tensor.shape) != len(tensor.values):
        raise RequestRefused(
            f"has {len(tensor.values)} values, its shape {list(tensor.shape)} asks for "
            f"{math.prod(tensor.shape)}",
            tensor.name[:60],
        )


def _split(tensor: Tensor, model: ModelVersion) -> dict[str, Values]:
    texts = [name for name, kind in model.columns.items() if not is_numeric(kind)]
    if texts or tensor.shape[1] != len(model.columns):
        needed = f"one tensor for each of the {len(model.columns)} columns"
        raise RequestRefused(f"'{tensor.name[:60]}' is not a column of the model; send {needed}")
    width = len(model.columns)
    columns = {name: tensor.values[index::width] for index, name in enumerate(model.columns)}
    for name, values in columns.items():
        check_values(name, tensor.datatype, values)
    return columns
