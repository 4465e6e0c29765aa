"""`ml-platform new` from a large file: a million rows of 60 columns.

`python -m benchmarks new_use_case`
"""

import os
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.result import Bench, Line, Result

ROWS = 1_000_000
QUICK_ROWS = 100_000
NUMBERS, TEXTS, WHOLE = 30, 20, 6
LIMIT_SECONDS = 20
LIMIT_BYTES = 10**9


def run(bench: Bench) -> Result:
    """Time the command in a process of its own."""
    file, rows = bench.folder / "large.csv", ROWS if bench.days is None else QUICK_ROWS
    # By another process: the largest memory of a new one begins with that of the one it is from.
    writer = get_context("spawn").Process(target=_write, args=(file, rows))
    writer.start()
    writer.join()
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(bench.folder / "data"),
        "ML_PLATFORM_USE_CASES": str(bench.folder / "use_cases"),
    }
    started = time.perf_counter()
    command = subprocess.Popen(
        [sys.executable, "-m", "ml_platform.cli", "new", "large", "--from", str(file)],
        env=environment, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    _, status, used = os.wait4(command.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        raise RuntimeError(f"`ml-platform new` ended with {os.waitstatus_to_exitcode(status)}")
    size = file.stat().st_size
    return Result(
        "A new use case from a large file",
        (
            Line("rows and columns", f"{rows:,}", f"{4 + NUMBERS + TEXTS + WHOLE}"),
            Line("size of the file", f"{size / 1e6:.0f} MB"),
            Line("seconds by the clock", ratio=seconds, limit=LIMIT_SECONDS),
            Line("seconds of CPU", f"{used.ru_utime + used.ru_stime:.1f}"),
            Line("largest memory, GB", ratio=used.ru_maxrss * 1024 / 1e9, limit=LIMIT_BYTES / 1e9),
        ),
    )


def _write(file: Path, rows: int) -> None:
    _table(rows).to_csv(file, index=False)


def _table(rows: int) -> pd.DataFrame:
    dice = np.random.default_rng(0)
    seconds = np.sort(dice.integers(0, 365 * 86_400, rows))
    moments = pd.Timestamp("2023-01-01") + pd.to_timedelta(seconds, "s")
    columns = {
        "order_id": np.arange(rows),
        "ordered_at": moments.strftime("%Y-%m-%d %H:%M:%S"),
        "store": dice.choice([f"store{n}" for n in range(200)], rows),
        **{f"number{n}": dice.normal(100, 10, rows).round(2) for n in range(NUMBERS)},
        **{f"text{n}": dice.choice([f"t{m}" for m in range(10 + n)], rows) for n in range(TEXTS)},
        **{f"whole{n}": dice.integers(0, 1000, rows) for n in range(WHOLE)},
    }
    label = (columns["number0"] + dice.normal(0, 10, rows) > 100).astype(int)
    return pd.DataFrame({**columns, "label": label})
