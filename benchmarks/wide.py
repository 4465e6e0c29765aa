"""A use case of 2,000 columns: what commands cost, against one of 20."""

import csv
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np

from benchmarks.result import Bench, Line, Result

NARROW, WIDE = 20, 2_000
NAME = "machines"
DAYS, ROWS_A_DAY = 20, 12
COMMANDS = (
    ("check",), ("ingest", NAME), ("features", NAME), ("labels", NAME), ("publish", NAME),
    ("status", NAME),
)  # fmt: skip
WORKS_ON_ALL = frozenset({"check", "ingest", "features"})
"""These read or compute every column of what has landed."""
REPETITIONS = 2
"""Taken in turns; the quickest of each counts, since other programs only ever slow one down."""
MORE_SECONDS = 2
"""What 2,000 columns may cost more in a command that computes nothing of them."""

SPEC = """\
description: Will this machine fail within a day?
partitions: {{cadence: daily, start: 2024-03-01, end: 2024-03-21}}
sources:
  readings:
    files: "readings/*.csv"
    event_time: read_at
    key: [machine, read_at]
    columns: {{machine: VARCHAR, read_at: TIMESTAMPTZ, failed: BOOLEAN, {columns}}}
features:
  state: {{entity: [machine], lookback: 1d, ttl: 1d}}
examples: {{source: readings, entity: [machine], columns: [c0]}}
label: {{task: binary, horizon: 1d}}
model: {{build: "model:build", window: 12d, holdout: 3d, metric: roc_auc}}
"""
VIEW = "SELECT machine, read_at AS event_time, {items} FROM readings\n"
LABELS = (
    "SELECT machine, read_at AS event_time, failed AS label, "
    "read_at + INTERVAL 6 HOUR AS known_at FROM readings\n"
)
MODEL = """\
from sklearn.linear_model import LogisticRegression


def build():
    return LogisticRegression()
"""


def run(bench: Bench) -> Result:
    """Run the same commands on both, in turns."""
    seconds: dict[tuple[str, int], list[float]] = {}
    for turn in range(REPETITIONS):
        for width in (NARROW, WIDE):
            project = bench.folder / f"{width}_{turn}"
            write(project, width, bench.seed)
            for command in COMMANDS:
                taken = _command(project, command)
                seconds.setdefault((command[0], width), []).append(taken)
    lines = [
        _line(command, min(seconds[command, WIDE]), min(seconds[command, NARROW]))
        for command, *_ in COMMANDS
    ]
    return Result(
        f"{WIDE:,} columns",
        tuple(lines),
        (
            f"CPU time of whole processes, each of which imports what it needs; {DAYS} files of "
            f"{ROWS_A_DAY} rows. A source has the columns, and a feature view yields as many.",
            f"`check` and `ingest` read the files; `features` computes the view and checks it for "
            f"leaks at some moments. The others may cost {MORE_SECONDS} s more.",
        ),
    )


def write(project: Path, width: int, seed: int) -> None:
    """A use case and its landing files."""
    names = [f"c{number}" for number in range(width)]
    folder = project / "use_cases" / NAME
    (folder / "features").mkdir(parents=True)
    columns = ", ".join(f"{name}: DOUBLE" for name in names)
    items = ", ".join(f"{name} / 2 AS {name}_half" for name in names)
    (folder / "use_case.yaml").write_text(SPEC.format(columns=columns), encoding="utf-8")
    (folder / "features" / "state.sql").write_text(VIEW.format(items=items), encoding="utf-8")
    (folder / "labels.sql").write_text(LABELS, encoding="utf-8")
    (folder / "model.py").write_text(MODEL, encoding="utf-8")
    landing = project / "data" / "landing" / NAME / "readings"
    landing.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for day in range(DAYS):
        values = rng.uniform(0, 10, (ROWS_A_DAY, width)).round(3)
        with (landing / f"{day}.csv").open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("machine", "read_at", "failed", *names))
            for number, row in enumerate(values):
                at = datetime(2024, 3, 1, tzinfo=UTC) + timedelta(days=day, hours=number)
                rows.writerow(("m", at.isoformat(), bool(number % 2), *row))


def _command(project: Path, command: tuple[str, ...]) -> float:
    """Run a command; its seconds of CPU, which other programs do not lengthen."""
    before = getrusage(RUSAGE_CHILDREN)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    called = [sys.executable, "-W", "ignore", "-m", "ml_platform.cli", *command]
    subprocess.run(called, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _line(command: str, wide: float, narrow: float) -> Line:
    limit = None if command in WORKS_ON_ALL else round((narrow + MORE_SECONDS) / narrow, 2)
    what = f"`{command}`, against {NARROW} columns"
    return Line(what, f"{wide:.1f} s", f"{narrow:.1f} s", wide / narrow, limit)
