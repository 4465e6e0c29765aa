"""`make mutants`: faults planted in the modules in which one is silent, and whether tests see them.

Each module is mutated in a copy of the repository of its own, where only the test modules run that
pyproject.toml names for it in [tool.mutants]. docs/mutants.md shows what came of it, and why those
that are left survive.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FAILED = {1, 3}
"""Exit codes of mutants that a test has killed; 3 where pytest itself could not continue."""
SURVIVED = {0: "no test failed", 33: "no test calls it", 5: "no test calls it"}
"""Exit codes of those that live; all others mean that the tests never ended, or crashed."""


@dataclass(frozen=True)
class Mutated:
    """What came of the mutants of one module: each that survived, with why."""

    module: str
    mutants: int
    survivors: Mapping[str, str]
    ended: Mapping[str, int]
    """Those that hung or crashed, with their exit codes; they count as killed."""

    @property
    def killed(self) -> int:
        return self.mutants - len(self.survivors)

    @property
    def row(self) -> str:
        cells = (self.module, self.mutants, self.killed, len(self.ended))
        share = self.killed / self.mutants
        return f"| {' | '.join(map(str, cells))} | {share:.0%} |"


def main() -> int:
    """Mutate what is asked for; the exit status is 1 where fewer are killed than should be."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutants"]
    modules: dict[str, list[str]] = declared["modules"]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("module", nargs="*", choices=[[], *modules], help="all by default")
    parser.add_argument("--jobs", type=int, default=2, help="mutants that are tried at once")
    parser.add_argument(
        "--digits", default="", help="a sample: mutants whose number ends with one of these"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "mutants")
    asked = parser.parse_args()
    found = []
    for module in asked.module or modules:
        folder = asked.folder / module.replace("/", "_")
        _copy(folder)
        _configure(folder, module, declared, modules[module])
        found.append(_run(folder, module, asked.jobs, asked.digits))
        for name, why in found[-1].survivors.items():
            print(f"{name}: {why}")
        for name, code in found[-1].ended.items():
            print(f"{name}: ended with {code}")
    print("| module | mutants | killed | of them hung or crashed | share |")
    print("| --- | ---: | ---: | ---: | ---: |")
    print("\n".join(each.row for each in found))
    return int(any(each.killed < declared["share"] * each.mutants for each in found))


def _copy(folder: Path) -> None:
    """What git knows, and what it does not ignore, as it is in the working tree."""
    shutil.rmtree(folder, ignore_errors=True)
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _configure(
    folder: Path, module: str, declared: Mapping[str, Any], tests: Sequence[str]
) -> None:
    """Write setup.cfg, which mutmut reads where pyproject.toml says nothing of it."""
    options = {
        "source_paths": ["ml_platform"],
        "only_mutate": [f"ml_platform/{module}.py"],
        "also_copy": declared["also_copy"],
        "pytest_add_cli_args": ["-n", "0", "-m", "not slow", "-p", "no:cacheprovider"],
        "pytest_add_cli_args_test_selection": tests,
    }
    lines = (f"{name} =\n    " + "\n    ".join(values) for name, values in options.items())
    (folder / "setup.cfg").write_text("[mutmut]\n" + "\n".join(lines) + "\n")


def _run(folder: Path, module: str, jobs: int, digits: str) -> Mutated:
    program = Path(sys.executable).with_name("mutmut")
    # Mutants are forked: OpenMP's threads do not survive that.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [str(program), "run", "--max-children", str(jobs)]
    command += [f"ml_platform.{module.replace('/', '.')}*[{digits}]"] if digits else []
    subprocess.run(command, cwd=folder, env=environment, check=True)
    text = (folder / "mutants" / "ml_platform" / f"{module}.py.meta").read_text()
    codes: dict[str, int | None] = json.loads(text)["exit_code_by_key"]
    tried = {name: code for name, code in codes.items() if code is not None}
    survivors = {name: SURVIVED[code] for name, code in tried.items() if code in SURVIVED}
    ended = {name: code for name, code in tried.items() if code not in {*SURVIVED, *FAILED}}
    return Mutated(module, len(tried), survivors, ended)


if __name__ == "__main__":
    raise SystemExit(main())
