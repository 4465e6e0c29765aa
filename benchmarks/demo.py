"""The demo after installation, in a fresh data folder, and once more when everything is there."""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.result import Bench, Line, Result

SECONDS_LIMIT = 120.0
MEMORY_LIMIT_GIB = 2.0
FINISHED = "finished"


@dataclass(frozen=True)
class Walked:
    """What one run of the demo took."""

    seconds: float
    cpu_seconds: float
    """Of all its processes."""
    gibibytes: float
    """Peak memory of its largest process."""


def run(bench: Bench) -> Result:
    """Run the demo twice; its data stays for benchmarks that read it."""
    data = bench.shared / "demo"
    shutil.rmtree(data, ignore_errors=True)
    first, again = walk(data), walk(data)
    lines = (
        _line("first run, time", first.seconds, SECONDS_LIMIT, "s"),
        Line("first run, CPU time of all processes", f"{first.cpu_seconds:.1f} s"),
        _line("first run, memory of the largest process", first.gibibytes, MEMORY_LIMIT_GIB, "GiB"),
        _line("again, time, against the first run", again.seconds, first.seconds, "s", limit=None),
        _line("again, memory of the largest process", again.gibibytes, MEMORY_LIMIT_GIB, "GiB"),
    )
    return Result(
        "The demo, against what it may take",
        lines,
        (
            "Wall time of the whole process, imports included; the limits are those of 2 cores "
            "without other work. Half its CPU time is what 2 cores need at least.",
        ),
    )


def demo_data(bench: Bench) -> Path | None:
    """The data folder of a finished demo, if `python -m benchmarks demo` left one."""
    data = bench.shared / "demo"
    return data if (data / FINISHED).exists() else None


def walk(data: Path) -> Walked:
    """Run the demo in a process of its own; RuntimeError where it fails, with what it said."""
    home, output = data / "dagster", data / "output.txt"
    home.mkdir(parents=True, exist_ok=True)
    # As `make demo` runs it.
    shutil.copy("deploy/dagster.yaml", home / "dagster.yaml")
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(data),
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
    }
    started = time.perf_counter()
    with output.open("wb") as file:
        process = os.posix_spawn(
            sys.executable,
            [sys.executable, "-m", "demo"],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, file.fileno(), stream) for stream in (1, 2)],
        )
        _, status, usage = os.wait4(process, 0)
    seconds = time.perf_counter() - started
    if os.waitstatus_to_exitcode(status):
        raise RuntimeError(f"the demo failed:\n{output.read_text(encoding='utf-8')[-2000:]}")
    (data / FINISHED).touch()
    return Walked(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 2**20)


def _line(what: str, ours: float, other: float, unit: str, limit: float | None = 1.0) -> Line:
    return Line(what, f"{ours:.2f} {unit}", f"{other:.2f} {unit}", ours / other, limit)
