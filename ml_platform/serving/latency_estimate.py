"""How long batches take, learned from those that were predicted lately."""

from dataclasses import dataclass

MEMORY = 0.95
"""What a batch weighs after the next one: about the last twenty count."""


@dataclass
class LatencyEstimate:
    """Seconds of a batch as a line over its rows, fitted to the latest ones.

    >>> estimate = LatencyEstimate()
    >>> for rows in (10, 20, 30):
    ...     estimate.learn(rows, 1.0 + rows / 10)
    >>> round(estimate.seconds(batches=2, rows=100), 6)
    12.0
    """

    _weight: float = 0.0
    _rows: float = 0.0
    _seconds: float = 0.0
    _rows_rows: float = 0.0
    _rows_seconds: float = 0.0

    def learn(self, rows: int, seconds: float) -> None:
        """Count a batch in."""
        self._weight = MEMORY * self._weight + 1
        self._rows = MEMORY * self._rows + rows
        self._seconds = MEMORY * self._seconds + seconds
        self._rows_rows = MEMORY * self._rows_rows + rows * rows
        self._rows_seconds = MEMORY * self._rows_seconds + rows * seconds

    def seconds(self, batches: int, rows: int) -> float:
        """What some batches with so many rows in all should take; 0 while nothing is known."""
        if not self._weight:
            return 0.0
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        spread = self._rows_rows / self._weight - mean_rows**2
        common = self._rows_seconds / self._weight - mean_rows * mean_seconds
        # Batches of one size say nothing of what a row costs; the whole is put to the batch.
        slope = max(common / spread, 0.0) if spread > 1e-9 * mean_rows**2 else 0.0
        fixed = max(mean_seconds - slope * mean_rows, 0.0)
        return batches * fixed + rows * slope
