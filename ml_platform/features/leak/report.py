"""What a leak check says."""

from dataclasses import dataclass
from datetime import datetime

from ml_platform.errors import LeakFound
from ml_platform.spec.windows import Window


@dataclass(frozen=True)
class LeakReport:
    """What the check compared; `problem` is None where nothing differed."""

    view: str
    """Of a feature view, or `labels`."""
    window: Window
    cuts: tuple[datetime, ...]
    """Moments that were tried, in order of time."""
    rows_compared: int
    problem: str | None

    def raise_if_found(self) -> None:
        """Raise LeakFound with the cause of the first difference."""
        if self.problem:
            raise LeakFound(self.problem)
