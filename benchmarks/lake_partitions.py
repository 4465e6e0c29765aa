"""What replacing one partition costs as the lake grows: more partitions, more rows in each.

`python -m benchmarks.lake_partitions` prints the medians of interleaved repetitions.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from ml_platform.settings import Settings
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Commit, Lake, Table, replace_windows

CALENDAR = Calendar.of(Cadence.daily, date(1990, 1, 1), "America/New_York")
TABLE = Table(
    "benchmark",
    "flights",
    {"flight": "BIGINT", "left_at": "TIMESTAMPTZ", "delay": "DOUBLE"},
    order=("left_at", "flight"),
)
PARTITIONS = (100, 10_000)
ROWS_A_PARTITION = 100
FLIGHTS_A_DAY = 922
SIZES = (1, 4, 16)
REPETITIONS = 15


@dataclass(frozen=True)
class Figure:
    """One line of the result."""

    name: str
    value: float
    unit: str


def measure(folder: Path, repetitions: int = REPETITIONS) -> list[Figure]:
    """Milliseconds to replace, to leave as it is and to read one partition, and their ratios."""
    by_partitions = {
        f"{count:,} partitions": _Lake(folder / f"partitions_{count}", count, ROWS_A_PARTITION)
        for count in PARTITIONS
    }
    by_rows = {
        f"{size} x flights a day": _Lake(folder / f"rows_{size}", 28, size * FLIGHTS_A_DAY)
        for size in SIZES
    }
    return [*_compare(by_partitions, repetitions), *_compare(by_rows, repetitions)]


class _Lake:
    """A lake of its own with one table of full partitions."""

    def __init__(self, folder: Path, partitions: int, rows: int) -> None:
        self.lake = Lake(Settings(data=folder))
        self.rows = rows
        self.windows = [CALENDAR.window_at(CALENDAR.start)]
        while len(self.windows) < partitions:
            self.windows.append(CALENDAR.window_at(self.windows[-1].end))
        self.fill(Window(self.windows[0].start, self.windows[-1].end), seed=0)

    def fill(self, window_range: Window, seed: int) -> None:
        with self.lake.cursor("America/New_York") as cursor:
            replace_windows(
                self.lake,
                cursor,
                TABLE,
                f"""SELECT flight, day + INTERVAL 6 HOUR + to_seconds(flight) AS left_at,
                (hash(flight, day, {seed}) % 100000) / 100 AS delay
                FROM generate_series(TIMESTAMPTZ '{window_range.start.isoformat()}',
                    TIMESTAMPTZ '{window_range.end.isoformat()}' - INTERVAL 1 HOUR, INTERVAL 1 DAY)
                    d(day), range({self.rows}) r(flight)""",
                time="left_at",
                calendar=CALENDAR,
                window_range=window_range,
                commit=Commit("benchmark", str(seed)),
            )

    def window(self, repetition: int) -> Window:
        return self.windows[len(self.windows) // 2 + repetition % (len(self.windows) // 2)]

    def replace(self, repetition: int) -> None:
        self.fill(self.window(repetition), seed=repetition + 1)

    def read(self, repetition: int) -> None:
        window = self.window(repetition)
        with self.lake.cursor("America/New_York") as cursor:
            cursor.execute(
                f"""SELECT count(*), avg(delay) FROM lake.benchmark.flights
                WHERE left_at >= '{window.start.isoformat()}'
                AND left_at < '{window.end.isoformat()}'"""
            ).fetchall()


def _compare(lakes: Mapping[str, _Lake], repetitions: int) -> list[Figure]:
    actions: Mapping[str, Callable[[_Lake, int], None]] = {
        "replace one": _Lake.replace,
        "write it again": _Lake.replace,
        "read one": _Lake.read,
    }
    times: dict[tuple[str, str], list[float]] = {(a, n): [] for a in actions for n in lakes}
    # Interleaved, so that whatever else the machine does slows all of them alike; the first
    # repetition warms caches and is not counted.
    for repetition in range(repetitions + 1):
        for name, lake in lakes.items():
            for action, act in actions.items():
                started = time.perf_counter()
                act(lake, repetition)
                if repetition:
                    times[action, name].append(1000 * (time.perf_counter() - started))
    medians = {key: statistics.median(values) for key, values in times.items()}
    smallest, *_, largest = lakes
    return [
        figure
        for action in actions
        for figure in (
            *(Figure(f"{action}, {name}", medians[action, name], "ms") for name in lakes),
            Figure(
                f"{action}, {largest} against {smallest}",
                medians[action, largest] / medians[action, smallest],
                "times",
            ),
        )
    ]


def main() -> None:
    """Print the figures as a table."""
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder))
    width = max(len(figure.name) for figure in figures)
    for figure in figures:
        print(f"{figure.name:<{width}}  {figure.value:8.1f} {figure.unit}")


if __name__ == "__main__":
    main()
