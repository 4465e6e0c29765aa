"""What is asked of an endpoint, and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EndpointRefused
from ml_platform.spec.windows import Window

T = TypeVar("T")

SHOWN = 300
"""Longest part of what a server says that is repeated."""


@dataclass(frozen=True)
class RowChunk:
    """Rows of one window that one request asks for."""

    window: Window
    first: int
    """Place of the first row in its window, from 0."""
    rows: pd.DataFrame
    """Columns of the model, float64 with NaN or text with None."""
    champion: int | None = None
    """The version that has to answer; None where any may."""


@dataclass(frozen=True)
class Answered:
    """Numbers that a model yielded for the rows of one request."""

    values: NDArray[np.float64]
    """Shape (n,), or the probabilities of classes, shape (n, k)."""
    version: int | None
    """The version that yielded them; None where the answer does not say."""
    called: str = ""
    """What the answer calls the version, where that is no whole number."""


class TryAgain(Exception):
    """The server did not answer, or asks to come again; another try may get an answer.

    after_seconds: how long the server asks to wait.
    """

    def __init__(self, reason: str, after_seconds: float | None = None) -> None:
        self.reason, self.after_seconds = reason, after_seconds
        super().__init__(reason)


class Asker(Protocol):
    """One protocol's way to ask one server; safe to share between threads."""

    where: str
    """Address, without a password."""

    def pack(self, rows: pd.DataFrame) -> bytes:
        """The body of a request; EndpointRefused where the protocol cannot say a value."""

    def ask(self, body: bytes) -> Answered:
        """Send it once. Raises TryAgain, or EndpointRefused where it is no use to try again."""

    def close(self) -> None:
        """Close its connections."""


def is_number(rows: pd.DataFrame, column: str) -> bool:
    """Whether a column holds numbers, and not text."""
    return bool(rows[column].dtype == np.float64)


def columns_as_lists(rows: pd.DataFrame) -> dict[str, list[Any]]:
    """Values by column as JSON has them: null where one is missing.

    Raises EndpointRefused for a number that JSON cannot say.
    """
    found = {}
    for name in rows.columns:
        values = rows[name].to_numpy()
        if is_number(rows, name) and np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise EndpointRefused(
                f"column '{name}' is infinite in its row {row}, which JSON cannot say; score it "
                "in process"
            )
        missing = pd.isna(values)
        found[name] = [
            None if lacks else value
            for lacks, value in zip(missing.tolist(), values.tolist(), strict=True)
        ]
    return found


def numbers(values: Any, what: str) -> NDArray[np.float64]:
    """An answer's numbers as an array; EndpointRefused where they are none."""
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise EndpointRefused(f"{what} holds something else than numbers") from None


def answered_by(values: NDArray[np.float64], version: object) -> Answered:
    """An answer with the version that it names, if it names one."""
    text = "" if version is None else str(version)
    if text.isascii() and text.isdecimal():
        return Answered(values, int(text))
    return Answered(values, None, text[:40])


def chosen(outputs: Mapping[str, T], name: str) -> T:
    """The output of a name, or the only one there is."""
    if name in outputs:
        return outputs[name]
    if len(outputs) == 1:
        return next(iter(outputs.values()))
    named = ", ".join(f"'{each[:40]}'" for each in list(outputs)[:8]) or "none"
    raise EndpointRefused(f"there is no output '{name}' among {named}; declare `scorer.output`")


def shaped(values: NDArray[np.float64], shape: list[int]) -> NDArray[np.float64]:
    """Values in the shape that an answer says they have; EndpointRefused where they do not fit."""
    try:
        return values.reshape(shape)
    except ValueError:
        raise EndpointRefused(f"{values.size} values do not fit the shape {shape}") from None
