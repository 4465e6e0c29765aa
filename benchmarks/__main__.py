"""`make bench`: every benchmark in turn, or the one that is named.

Each runs in a process of its own, with clean memory. The newest results of all of them are in
docs/benchmarks.md.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from benchmarks.report import show, write_page
from benchmarks.result import Result

NAMES = (
    "lake_partitions",
    "overlaps",
    "kills",
    "windows",
    "upkeep",
    "backups",
    "new_use_case",
    "landing",
    "log_ingestion",
    "corrections",
    "loading",
    "wide",
    "year_backfill",
    "leaks",
    "backfill_daemon",
    "scoring",
    "endpoints",
    "engines",
    "publishing",
    "databases",
    "lakes",
    "serving",
    "overload",
    "restarts",
    "tracing",
    "soak",
    "review",
    "point_in_time",
    "drift",
    "replay",
    "demo",
    "model_quality",
)
SHARED = Path("data/benchmarks")
FEWEST_DAYS = 14
BUSY = 2
"""Processes a core from which on the page says that the machine had other work."""
WIDTH = 110
PAGE = Path("docs/benchmarks.md")


def main() -> int:
    """Run what is asked for; the exit status is 1 where a benchmark could not be run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", nargs="*", choices=[[], *NAMES], help="all by default")
    parser.add_argument("--days", type=int, help="only the first days of the year (a quick look)")
    parser.add_argument("--kills", type=int, default=0, help="how many commands `kills` kills")
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn at random")
    asked = parser.parse_args()
    if asked.days is not None and asked.days < FEWEST_DAYS:
        parser.error(f"--days is at least {FEWEST_DAYS}, or there is nothing to train on")
    console = Console() if sys.stdout.isatty() else Console(width=WIDTH)
    results: dict[str, Result] = {}
    failed = False
    started = time.perf_counter()
    for name in asked.name or NAMES:
        console.print(f"[bold]{name}[/] …")
        result = _run(name, asked)
        if result is None:
            failed = True
            console.print(f"[bold red]error:[/] {name} ended without a result, see above")
            continue
        result = _with_load(result)
        results[name] = result
        show(console, result)
    if asked.days is None and results:
        # A benchmark run by itself renews its own section of the page.
        write_page(PAGE, NAMES, results)
        console.print(f"Written to {PAGE} after {time.perf_counter() - started:.0f} s")
    return int(failed)


def _with_load(result: Result) -> Result:
    """The result, with a word on other work where there was much of it."""
    load, cores = os.getloadavg()[1], os.cpu_count() or 1
    if load <= BUSY * cores:
        return result
    note = (
        f"Measured while other programs kept the machine busy (load {load:.0f} on {cores} cores): "
        "times by the clock say little, CPU time holds."
    )
    return replace(result, notes=(*result.notes, note))


def _run(name: str, options: argparse.Namespace) -> Result | None:
    SHARED.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}_", dir=SHARED)).resolve()
    result = folder / "result.json"
    asked = [
        name, str(folder), str(SHARED.resolve()), str(result), str(options.days or "all"),
        str(options.kills), str(options.seed),
    ]  # fmt: skip
    try:
        subprocess.run(
            [sys.executable, "-m", "benchmarks.one", *asked], env=_environment(), check=False
        )
        return Result.read(result) if result.exists() else None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment() -> dict[str, str]:
    """This process's environment without settings of a deployment, and without telemetry."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ML_PLATFORM_", "DAGSTER_"))}
    return {
        **kept,
        # Threads that spin while they wait would take the processor from those that work.
        "OMP_WAIT_POLICY": "PASSIVE",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


if __name__ == "__main__":
    sys.exit(main())
