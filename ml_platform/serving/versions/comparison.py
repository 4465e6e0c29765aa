"""How a version that is tried does beside the champion: sums, added up over all workers.

Each worker appends what it saw since the last time to a table of the lake; sums can be added.
"""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import duckdb
import numpy as np
from numpy.typing import NDArray

from ml_platform.errors import TableNotFound
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, Table
from ml_platform.storage.tables import ensure_table

Side = Literal["champion", "candidate"]
SIDES: tuple[Side, ...] = ("champion", "candidate")
BOUNDS = tuple(0.0005 * 2 ** (step / 2) for step in range(30))
"""Upper bounds of the latencies that are counted together, in seconds."""


@dataclass(frozen=True)
class Pair:
    """Which versions are compared, and how."""

    use_case: str
    champion: int
    candidate: int
    mode: str


class Tally:
    """Sums by name; those of two tallies can be added."""

    def __init__(self, figures: Mapping[str, float] | None = None) -> None:
        # Counters add floats as well, which their types do not say.
        self.figures: Counter[str] = Counter(figures or {})

    def answered(self, side: Side, seconds: float, predicted: NDArray[np.float64]) -> None:
        """Add a request that a side answered."""
        self._add(f"{side}_requests", 1)
        self._add(f"{side}_rows", len(predicted))
        self._add(f"{side}_sum", float(predicted.sum()))
        self._add(f"{side}_le_{bisect_left(BOUNDS, seconds)}", 1)

    def failed(self) -> None:
        """Add a request that the candidate failed at."""
        self._add("candidate_errors", 1)

    def dropped(self) -> None:
        """Add a request that the candidate was not asked for want of time."""
        self._add("candidate_dropped", 1)

    def paired(self, champion: NDArray[np.float64], candidate: NDArray[np.float64]) -> None:
        """Add what both said of the same rows."""
        self._add("pairs", len(champion))
        self._add("x", float(champion.sum()))
        self._add("y", float(candidate.sum()))
        self._add("xx", float(champion @ champion))
        self._add("yy", float(candidate @ candidate))
        self._add("xy", float(champion @ candidate))
        self._add("absolute", float(np.abs(champion - candidate).sum()))

    def _add(self, name: str, value: float) -> None:
        self.figures[name] += value  # type: ignore[assignment]


@dataclass(frozen=True)
class VersionComparison:
    """What all workers saw; None where nothing is known."""

    pair: Pair
    figures: Mapping[str, float]

    def requests(self, side: Side) -> int:
        return int(self.figures.get(f"{side}_requests", 0))

    @property
    def errors(self) -> int:
        return int(self.figures.get("candidate_errors", 0))

    @property
    def dropped(self) -> int:
        return int(self.figures.get("candidate_dropped", 0))

    def mean(self, side: Side) -> float | None:
        """Mean prediction: of the rows that both predicted, where there are such."""
        if pairs := self.figures.get("pairs"):
            return self.figures["x" if side == "champion" else "y"] / pairs
        rows = self.figures.get(f"{side}_rows")
        return self.figures[f"{side}_sum"] / rows if rows else None

    @property
    def difference(self) -> float | None:
        """Mean absolute difference of the predictions of the same rows."""
        pairs = self.figures.get("pairs")
        return self.figures["absolute"] / pairs if pairs else None

    @property
    def correlation(self) -> float | None:
        """Pearson's, of the predictions of the same rows; None where one side is constant."""
        n, f = self.figures.get("pairs", 0), self.figures
        if n < 2:
            return None
        x, y = n * f["xx"] - f["x"] ** 2, n * f["yy"] - f["y"] ** 2
        if min(x / n**2, y / n**2) <= 1e-12:
            return None
        return float((n * f["xy"] - f["x"] * f["y"]) / math.sqrt(x * y))

    def latency(self, side: Side, quantile: float) -> float | None:
        """Upper bound of a quantile of the latency, in seconds."""
        counts = [self.figures.get(f"{side}_le_{i}", 0) for i in range(len(BOUNDS) + 1)]
        total, seen = sum(counts), 0.0
        for bound, count in zip((*BOUNDS, math.inf), counts, strict=True):
            seen += count
            if total and seen >= quantile * total:
                return bound
        return None


def numbers_of(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """One number for each prediction: the probability, the prediction, or the best class's."""
    if "probabilities" in columns:
        return np.array([max(row.values()) for row in columns["probabilities"]], np.float64)
    return columns.get("probability", columns.get("predicted", np.empty(0))).astype(np.float64)


def comparisons_table(use_case: UseCase) -> Table:
    """Where the sums are kept; it has no windows."""
    return Table(
        schema=use_case.name,
        name="rollout_comparisons",
        columns={
            "champion": "INTEGER",
            "candidate": "INTEGER",
            "mode": "VARCHAR",
            "worker": "VARCHAR",
            "noted_at": "TIMESTAMPTZ",
            "figures": "MAP(VARCHAR, DOUBLE)",
        },
        order=("noted_at", "worker"),
    )


def append_tally(
    lake: Lake, use_case: UseCase, pair: Pair, tally: Tally, worker: str, commit: Commit
) -> None:
    """Append what one worker saw since it last did."""
    table = comparisons_table(use_case)
    values = [pair.champion, pair.candidate, pair.mode, worker, datetime.now(UTC),
              list(tally.figures), [float(v) for v in tally.figures.values()]]  # fmt: skip
    insert = (
        f"INSERT INTO {table.sql} ({', '.join(table.columns)}) "
        "VALUES (?, ?, ?, ?, ?, map(?::VARCHAR[], ?::DOUBLE[]))"
    )
    with lake.cursor() as cursor:
        ensure_table(lake, cursor, table, commit, partitioned=False)
        lake.transact(cursor, commit, lambda t: _execute(t, insert, values))


def comparisons(lake: Lake, use_case: UseCase) -> list[VersionComparison]:
    """What was seen of every pair of versions and mode, the latest last."""
    with lake.cursor() as cursor:
        try:
            table = lake.relation(cursor, use_case.name, "rollout_comparisons")
        except TableNotFound:
            return []
        rows = cursor.execute(
            f"""SELECT champion, candidate, mode, map_keys(figures), map_values(figures)
            FROM {table} ORDER BY noted_at"""
        ).fetchall()
    found: dict[Pair, Tally] = {}
    for champion, candidate, mode, names, values in rows:
        pair = Pair(use_case.name, champion, candidate, mode)
        figures = Counter(dict(zip(names, values, strict=True)))
        tally = found.pop(pair, Tally())
        tally.figures.update(figures)
        found[pair] = tally
    return [VersionComparison(pair, tally.figures) for pair, tally in found.items()]


def _execute(cursor: duckdb.DuckDBPyConnection, sql: str, values: list[Any]) -> None:
    cursor.execute(sql, values)
