"""One benchmark in a process of its own.

`python -m benchmarks.one NAME FOLDER SHARED RESULT DAYS KILLS SEED`
"""

import importlib
import sys
import warnings
from pathlib import Path

from benchmarks.result import Bench, Line, Result

PARTITIONS_LIMIT = 3.0


def main(
    name: str, folder: str, shared: str, result: str, days: str, kills: str, seed: str
) -> None:
    """Run a benchmark and write down what it found; days: a number, or `all`; kills: 0 or more."""
    warnings.filterwarnings("ignore")
    first = None if days == "all" else int(days)
    bench = Bench(Path(folder), Path(shared), first, int(kills) or None, int(seed))
    if name == "lake_partitions":
        found = _lake_partitions(bench)
    else:
        found = importlib.import_module(f"benchmarks.{name}").run(bench)
    found.write(Path(result))


def _lake_partitions(bench: Bench) -> Result:
    from benchmarks.lake_partitions import measure

    figures = measure(bench.folder)
    lines = []
    for figure in figures:
        if figure.unit == "times":
            limit = PARTITIONS_LIMIT if "partitions" in figure.name else None
            lines.append(Line(figure.name, ratio=figure.value, limit=limit))
        else:
            lines.append(Line(figure.name, f"{figure.value:.1f} {figure.unit}"))
    return Result("One partition as the lake grows", tuple(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
