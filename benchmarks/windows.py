"""What every command costs as windows grow in number: 500, 5,000 and six years of hours.

`python -m benchmarks windows`
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.counts import SENSORS
from benchmarks.result import Bench, Line, Result
from benchmarks.windows_one import COMMANDS, HOURS_REPLACED, Figures

SIZES = (500, 5_000, 52_584)
ONE = "one hour: "
TOTAL_SECONDS = 180.0
STATUS_SECONDS = 2.0
PEAK_BYTES = 2 * 2**30
MOST_FILES = 3
REPLACED_TIMES = 2.0


def run(bench: Bench) -> Result:
    """Measure each number of windows in a process of its own, one after the other."""
    sizes = SIZES if bench.days is None else SIZES[:2]
    return _result([_measured(bench.folder, size) for size in sizes])


def _measured(folder: Path, windows: int) -> Figures:
    root, result = folder / str(windows), folder / f"{windows}.json"
    root.mkdir()
    asked = [str(root), str(windows), str(result)]
    subprocess.run([sys.executable, "-m", "benchmarks.windows_one", *asked], check=True)
    return Figures(**json.loads(result.read_text(encoding="utf-8")))


def _result(found: list[Figures]) -> Result:
    small, large = found[0], found[-1]
    lines = [*_growth(found), *_hour(small, large), *_bounds(large)]
    heading = ("CPU time", *(f"{each.windows:,} windows" for each in found))
    names = [name for name in large.cpu_seconds if not name.startswith(ONE)]
    grid = [
        (name, *(f"{each.cpu_seconds[name]:.2f} s" for each in found)) for name in names
    ] + [
        (f"{name} (median of {HOURS_REPLACED})",
         *(f"{1000 * median(each.repeated[name]):.0f} ms" for each in found))
        for name in large.cpu_seconds if name.startswith(ONE)
    ] + [
        ("Parquet files on disk", *(f"{each.files_on_disk:,}" for each in found)),
        ("their size", *(f"{each.bytes_on_disk / 2**20:.1f} MiB" for each in found)),
        ("peak memory", *(f"{each.peak_bytes / 2**20:.0f} MiB" for each in found)),
    ]  # fmt: skip
    notes = (
        f"Hourly windows over {SENSORS} sensors, {large.rows:,} rows in the largest, one CSV file "
        "a month; one feature view, one training, all windows from its cutoff on scored, judged "
        "and measured; direct calls in one process.",
        "One hour: a file corrects what was counted in it, and each table of that hour is brought "
        "up to date. Files on disk are those of all snapshots, since none was expired.",
        "Growth divides the CPU time by that of ten times fewer windows; a command that looks at "
        "its windows alone comes to ten and its fixed part.",
    )
    return Result("Windows", tuple(lines), notes, (heading, *grid))


def _growth(found: list[Figures]) -> Iterator[Line]:
    *_, before, large = found
    times = large.windows / before.windows
    for name in ("look at landing", *COMMANDS.values()):
        ours, other = large.cpu_seconds[name], before.cpu_seconds[name]
        yield Line(
            f"{name}, CPU of {large.windows:,} windows against {before.windows:,}",
            f"{ours:.2f} s", f"{other:.2f} s", ours / other, round(2 * times),
        )  # fmt: skip


def _hour(small: Figures, large: Figures) -> Iterator[Line]:
    names = [name for name in large.repeated if name.startswith(ONE)]
    ours, other = (
        sum(median(each.repeated[name]) for name in names) for each in (large, small)
    )  # fmt: skip
    yield Line(
        f"one hour replaced, landing to performance, CPU among {large.windows:,} windows against "
        f"{small.windows:,}",
        f"{1000 * ours:.0f} ms", f"{1000 * other:.0f} ms", ours / other, REPLACED_TIMES,
    )  # fmt: skip


def _bounds(large: Figures) -> Iterator[Line]:
    names = [name for name in large.seconds if not name.startswith(ONE) and name != "status"]
    for what, seconds in (("by the clock", large.seconds), ("CPU time", large.cpu_seconds)):
        total = sum(seconds[name] for name in names)
        yield Line(
            f"{large.windows:,} windows from landing to performance, {what}",
            f"{total:.0f} s", f"{TOTAL_SECONDS:.0f} s", total / TOTAL_SECONDS, 1.0,
        )  # fmt: skip
    status = large.seconds["status"]
    yield Line(
        f"status, {large.windows:,} windows", f"{status:.2f} s", f"{STATUS_SECONDS:.0f} s",
        status / STATUS_SECONDS, 1.0,
    )  # fmt: skip
    yield Line(
        f"peak memory, {large.windows:,} windows", f"{large.peak_bytes / 2**30:.2f} GiB", "2 GiB",
        large.peak_bytes / PEAK_BYTES, 1.0,
    )  # fmt: skip
    most = max(large.files.values())
    yield Line(
        "most files of a month and table, after hours were replaced", str(most), str(MOST_FILES),
        most / MOST_FILES, 1.0,
    )  # fmt: skip
