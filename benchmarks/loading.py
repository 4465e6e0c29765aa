"""What starting costs: importing the library, loading definitions of one and of fifty use cases."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

from benchmarks.result import Bench, Line, Result
from benchmarks.year import USE_CASE
from ml_platform.spec.use_case import SPEC_FILE

USE_CASES, MORE_USE_CASES = 50, 200
MANY_LIMIT = 3.0
KEPT_LIMIT = 1.5
START = date(2013, 1, 1)
"""When the use case begins that is copied."""
REPETITIONS = 3
"""Taken in turns; the quickest of each counts, since other programs only ever slow one down."""
IMPORTS = {
    "bare": "pass",
    "library": "import ml_platform",
    "use case": "from ml_platform.spec.loading import load_use_cases; import pathlib; "
    "load_use_cases(pathlib.Path('use_cases'))",
    "dagster": "import dagster",
}
LOAD = (
    "from ml_platform.spec.loading import load_use_cases; from ml_platform.settings import "
    "Settings; s = Settings(); assert not load_use_cases(s.use_cases, (), s.derived).broken"
)
"""As commands and code locations do it."""


def run(bench: Bench) -> Result:
    """Time processes that import and load, against the bare interpreter and Dagster alone."""
    folders = {count: bench.folder / f"use_cases_{count}" for count in (USE_CASES, MORE_USE_CASES)}
    for count, folder in folders.items():
        for number in range(count):
            _copy(folder / f"copy_{number}", number)
    kept = _settings(bench.folder / "data", USE_CASE.parent)
    many = _settings(bench.folder / "data_many", folders[USE_CASES])
    more = _settings(bench.folder / "data_more", folders[MORE_USE_CASES])
    actions = {name: partial(_python, code, {}) for name, code in IMPORTS.items()}
    # The first time of each keeps what the others find.
    actions["load one"] = partial(_python, LOAD, kept)
    actions["load many"] = partial(_python, LOAD, many)
    actions["load more"] = partial(_python, LOAD, more)
    actions["one"] = partial(_python, "import definitions", kept)
    actions["many"] = partial(_python, "import definitions", many)
    rounds = [{name: action() for name, action in actions.items()} for _ in range(REPETITIONS)]
    return _result({name: min(each[name] for each in rounds) for name in actions})


def _settings(data: Path, use_cases: Path) -> dict[str, str]:
    data.mkdir()
    return {"ML_PLATFORM_DATA": str(data), "ML_PLATFORM_USE_CASES": str(use_cases.resolve())}


def _copy(folder: Path, days: int) -> None:
    """A use case that begins some days later, so that little of it is what others have found."""
    shutil.copytree(USE_CASE, folder)
    file = folder / SPEC_FILE
    spec = file.read_text(encoding="utf-8")
    assert spec.count(f"start: {START}") == 1
    later = f"start: {START + timedelta(days=days)}"
    file.write_text(spec.replace(f"start: {START}", later), encoding="utf-8")


def _python(code: str, settings: Mapping[str, str]) -> float:
    """Run a process; its milliseconds of CPU, which other programs do not lengthen."""
    before = getrusage(RUSAGE_CHILDREN)
    environment = {**os.environ, **settings}
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], env=environment, check=True)
    after = getrusage(RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def _result(ms: Mapping[str, float]) -> Result:
    each = (ms["many"] - ms["one"]) / (USE_CASES - 1)
    bare = ms["bare"]
    lines = (
        _line("import ml_platform, against a bare interpreter", ms["library"], bare),
        _line("import and load a use case, against a bare interpreter", ms["use case"], bare),
        _line(
            f"import and load {USE_CASES} use cases that have not changed, against 1",
            ms["load many"],
            ms["load one"],
            KEPT_LIMIT,
        ),
        _line(f"the same for {MORE_USE_CASES}, against 1", ms["load more"], ms["load one"]),
        _line("definitions of 1 use case, against importing dagster", ms["one"], ms["dagster"]),
        _line(
            f"definitions of {USE_CASES} use cases, against 1", ms["many"], ms["one"], MANY_LIMIT
        ),
    )
    notes = (
        f"CPU time of whole processes. Less the bare interpreter: import ml_platform "
        f"{ms['library'] - bare:.0f} ms, import dagster {ms['dagster'] - bare:.0f} ms.",
        f"A use case more costs {each:.0f} ms; {USE_CASES} of them are copies of one folder, of "
        "which each begins a day later than the one before.",
    )
    return Result("Loading", lines, notes)


def _line(what: str, ours: float, other: float, limit: float | None = None) -> Line:
    return Line(what, f"{ours:.0f} ms", f"{other:.0f} ms", ours / other, limit)
