"""Fitting on a part of the rows before the holdout: always the same part of the same rows.

A row is taken or left by a hash of its entity and event time, so that a larger sample has all rows
of a smaller one, and a row that is added changes nothing for the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

HASHES = 2.0**64
"""How many hashes of a row there are."""


@dataclass(frozen=True)
class Sample:
    """Which of the rows before the holdout are fitted on; all of them without either bound."""

    share: float | None = None
    """Of the rows, in expectation."""
    rows: int | None = None
    """Most rows."""

    def __bool__(self) -> bool:
        return self.rows is not None or (self.share is not None and self.share < 1)

    def take(self, rows: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
        """The rows of the sample, in their order; names: the columns that name a row."""
        if not self:
            return rows
        hashes = pd.util.hash_pandas_object(rows[list(names)], index=False).to_numpy()
        taken = np.ones(len(rows), dtype=bool)
        if self.share is not None:
            taken &= hashes < self.share * HASHES
        if self.rows is not None and taken.sum() > self.rows:
            ranked = np.flatnonzero(taken)
            left = ranked[np.argsort(hashes[ranked], kind="stable")[self.rows :]]
            taken[left] = False
        return rows[taken].reset_index(drop=True)

    def __str__(self) -> str:
        """In words: `0.3 of the rows, 1000 rows at most`; `all rows`."""
        share = [] if self.share is None else [f"{self.share:g} of the rows"]
        rows = [] if self.rows is None else [f"{self.rows} rows at most"]
        return ", ".join([*share, *rows]) or "all rows"

    def __post_init__(self) -> None:
        if (self.share is not None and not 0 < self.share <= 1) or (
            self.rows is not None and self.rows < 1
        ):
            raise ValueError(f"a sample has a share above 0 and up to 1, and rows; not {self}")


ALL_ROWS = Sample()
