"""Datatypes of the Open Inference Protocol, and whether values are of theirs."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import RequestRefused
from ml_platform.serving.inputs import SHOWN, Values, shown

BYTES, BOOL = "BYTES", "BOOL"
NUMPY_TYPES: dict[str, np.dtype[Any]] = {
    BOOL: np.dtype("?"), "UINT8": np.dtype("<u1"), "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"), "UINT64": np.dtype("<u8"), "INT8": np.dtype("<i1"),
    "INT16": np.dtype("<i2"), "INT32": np.dtype("<i4"), "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"), "FP32": np.dtype("<f4"), "FP64": np.dtype("<f8"),
}  # fmt: skip
LARGEST = {
    name: float(np.finfo(dtype).max) for name, dtype in NUMPY_TYPES.items() if dtype.kind == "f"
}

_FLOATS = frozenset({float, type(None)})


def numpy_type(name: str, datatype: str) -> "np.dtype[Any]":
    """The type of numbers of a tensor; RequestRefused, which names the tensor, where it is none."""
    if datatype not in NUMPY_TYPES:
        known = ", ".join([*NUMPY_TYPES, BYTES])
        raise RequestRefused(f"datatype '{datatype[:20]}' is not one of {known}", name[:SHOWN])
    return NUMPY_TYPES[datatype]


def check_values(column: str, datatype: str, values: Values) -> None:
    """Raise RequestRefused, with column, row and value, for the first value of another datatype.

    values: None stands for a missing one, whatever the datatype. Whole numbers may be written as
    1.0, which is the same number in JSON.
    """
    if isinstance(values, np.ndarray):
        # Of that type already: its bytes were read as such.
        return
    if datatype == "FP64" and _FLOATS.issuperset(map(type, values)):
        # What most requests have; each value of the type fits.
        return
    fits = _predicate(datatype)
    for row, value in enumerate(values):
        if value is not None and not fits(value):
            problem = f"row {row} is {shown(value)}, which is not {datatype}: {_meaning(datatype)}"
            raise RequestRefused(problem, column[:SHOWN])


def read_numbers(name: str, datatype: str, data: bytes) -> NDArray[Any]:
    """Numbers or booleans from the binary form of a tensor; RequestRefused where it is none."""
    dtype = numpy_type(name, datatype)
    if len(data) % dtype.itemsize:
        raise RequestRefused(
            f"{len(data)} bytes are not a whole number of {datatype} values", name[:SHOWN]
        )
    values: NDArray[Any] = np.frombuffer(data, dtype)
    if datatype == BOOL and (wrong := values.view(np.uint8) > 1).any():
        row = int(wrong.argmax())
        raise RequestRefused(f"row {row} is the byte {data[row]}, which is not BOOL", name[:SHOWN])
    return values


def _predicate(datatype: str) -> Callable[[Any], bool]:
    if datatype == BYTES:
        return lambda value: isinstance(value, str)
    if datatype == BOOL:
        return lambda value: isinstance(value, bool)
    if datatype in LARGEST:
        largest = LARGEST[datatype]
        # Infinities and NaN are numbers of these types: what a model takes is another question.
        return lambda value: (
            _is_number(value)
            and (abs(value) <= largest or (isinstance(value, float) and not math.isfinite(value)))
        )
    limits = np.iinfo(NUMPY_TYPES[datatype])
    low, high = int(limits.min), int(limits.max)
    return lambda value: _is_number(value) and low <= value <= high and value == int(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meaning(datatype: str) -> str:
    if datatype == BYTES:
        return "text"
    if datatype == BOOL:
        return "true or false"
    if datatype in LARGEST:
        return f"a number up to {LARGEST[datatype]:g}"
    limits = np.iinfo(NUMPY_TYPES[datatype])
    return f"a whole number from {limits.min} to {limits.max}"
