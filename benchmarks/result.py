"""What a benchmark found: lines of figures, each beside what it is compared with."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Line:
    """One comparison; the limit, where there is one, bounds the ratio."""

    what: str
    ours: str = ""
    other: str = ""
    ratio: float | None = None
    limit: float | None = None
    at_least: bool = False
    """Whether the ratio should reach the limit instead of staying below it."""

    @property
    def verdict(self) -> str:
        """Whether the limit holds: `ok`, `over`, `under`, or nothing where there is no limit."""
        if self.limit is None or self.ratio is None:
            return ""
        if self.at_least:
            return "ok" if self.ratio >= self.limit else "under"
        return "ok" if self.ratio <= self.limit else "over"

    @property
    def cells(self) -> tuple[str, ...]:
        """The line as texts: what, ours, other, ratio, limit, verdict."""
        ratio = "" if self.ratio is None else f"{self.ratio:#.3g}".rstrip(".")
        limit = "" if self.limit is None else f"{'≥' if self.at_least else '≤'} {self.limit:g}"
        return self.what, self.ours, self.other, ratio, limit, self.verdict


HEADINGS = ("what", "ours", "other", "ratio", "limit", "")


@dataclass(frozen=True)
class Result:
    """The lines of one benchmark, and what has to be said about them."""

    title: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()
    grid: tuple[tuple[str, ...], ...] = ()
    """A further table, its headings first."""

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> "Result":
        values = json.loads(file.read_text(encoding="utf-8"))
        lines = tuple(Line(**line) for line in values["lines"])
        grid = tuple(tuple(row) for row in values["grid"])
        return cls(values["title"], lines, tuple(values["notes"]), grid)


@dataclass(frozen=True)
class Bench:
    """What every benchmark is given."""

    folder: Path
    """Where it may keep files; its own, and empty at the start."""
    shared: Path
    """Where the prepared year and what else several benchmarks use is kept."""
    days: int | None = None
    """Take only the first days of the year, for a quick look; all of it by default."""
    kills: int | None = None
    """How many commands are killed; each benchmark that kills has a number of its own."""
    seed: int = 1
    """What is drawn at random is drawn from."""


@dataclass
class Clock:
    """Seconds by name, in the order of their first appearance."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    """Of all threads of this process."""

    def time(self, name: str, action: Callable[[], T]) -> T:
        """Run an action, and note what it took."""
        started, cpu_started = perf_counter(), process_time()
        result = action()
        self.seconds.setdefault(name, []).append(perf_counter() - started)
        self.cpu_seconds.setdefault(name, []).append(process_time() - cpu_started)
        return result

    def median(self, name: str) -> float:
        return median(self.seconds[name])

    def median_cpu(self, name: str) -> float:
        return median(self.cpu_seconds[name])
