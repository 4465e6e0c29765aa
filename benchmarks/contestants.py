"""Processes that join on request, and the environment in which Feast runs."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FEAST = ("requirements/bench.txt", "feast.infra.offline_stores.duckdb")
BENTO = ("requirements/bench_bento.txt", "bentoml")
"""What an environment is made of, and a module by which it is known to be there."""
HERE = Path(__file__).parent


class Contestant:
    """A process that has loaded what it needs and does its join once for each line it is sent."""

    def __init__(self, name: str, task: Path, feast: Path | None) -> None:
        self.name = name
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.joins", name, str(task)]
        if name == "Feast":
            command = [str(feast), "-W", "ignore", str(HERE / "feast_join.py"), str(task)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def go(self) -> tuple[float, float]:
        """Join once; returns seconds by the clock and of CPU."""
        answer = self._ask("go")
        return float(answer["seconds"]), float(answer["cpu_seconds"])

    def finish(self) -> dict[str, Any]:
        """What it found: rows, values that are not null, peak memory in MiB."""
        return self._ask("finish")

    def stop(self) -> None:
        """End the process, also where it never answered."""
        self._process.kill()
        self._process.wait()

    def _ask(self, question: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        # Libraries print as well; an answer is the one line that is marked.
        for line in self._process.stdout:
            if line.startswith("answer "):
                answer: dict[str, Any] = json.loads(line.removeprefix("answer "))
                return answer
        raise RuntimeError(f"{self.name} ended without an answer; what it said is above")


def environment(folder: Path, made_of: tuple[str, str]) -> Path | str:
    """The Python of an environment of its own; a reason where it cannot be made.

    made_of: a file of requirements with hashes, and a module that they bring.
    """
    requirements, module = made_of
    python = folder / "bin" / "python"
    if _has(python, module):
        return python
    uv = Path(sys.executable).with_name("uv")
    create = [sys.executable, "-m", "venv", "--clear", str(folder)]
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if uv.exists():
        create = [str(uv), "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)]
        pip = [str(uv), "pip", "install", "--quiet", "--python", str(python)]
    for command in (create, [*pip, "--require-hashes", "-r", requirements]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            last = (done.stderr or done.stdout).strip().splitlines()[-1:]
            return f"its environment could not be made: {' '.join(last)}"
    return python if _has(python, module) else f"{requirements} does not bring {module}"


def _has(python: Path, module: str) -> bool:
    if not python.exists():
        return False
    done = subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, check=False)
    return done.returncode == 0
