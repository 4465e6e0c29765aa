"""Commands killed at random moments: nothing is lost, and the same command then succeeds.

`python -m benchmarks kills --kills 1000 --seed 1`
"""

import json
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from benchmarks.deployments import KINDS, deployment, environment_set
from benchmarks.kills_state import (
    DAYS,
    Found,
    begin,
    differences_to_undisturbed,
    look,
    ready,
    write_use_case,
)
from benchmarks.result import Bench, Line, Result

KILLS = 300
QUICK_KILLS = 15
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
FIRST_GUESS_SECONDS = 2.0
SLOWER = 1.15
"""Moments are drawn up to so many times what the command took the last time."""


@dataclass
class Trial:
    """A command that was killed, and what was found after it and after its repetition."""

    command: str
    signal: str
    repeated: int
    """Exit code of the repeated command; a refusal of what was done already counts as 0."""
    said: str
    torn: int
    wrong: Mapping[str, int] = field(default_factory=dict)


def run(bench: Bench) -> Result:
    """Kill commands on each deployment, on all of them at once; with `--days`, only a few."""
    kills = bench.kills or (KILLS if bench.days is None else QUICK_KILLS)
    shares = [kills // len(KINDS) + (number < kills % len(KINDS)) for number in range(len(KINDS))]
    seeds = range(bench.seed, bench.seed + len(KINDS))
    folders = [bench.folder / kind for kind in KINDS]
    lines: list[Line] = []
    notes: list[str] = [f"Seed {bench.seed}; the kills are shared by the deployments."]
    # Processes of their own: a campaign forks, and sets the environment of all it starts.
    with ProcessPoolExecutor(len(KINDS), get_context("spawn")) as processes:
        for found, said in processes.map(_campaign, KINDS, folders, shares, seeds):
            lines += found
            notes += said
    return Result("Commands that are killed", tuple(lines), tuple(notes))


def _campaign(kind: str, folder: Path, kills: int, seed: int) -> tuple[list[Line], list[str]]:
    folder.mkdir()
    with (
        deployment(kind, folder) as environment,
        environment_set({**environment, **ENVIRONMENT}),
    ):
        return Campaign(folder, seed).run(kind, kills)


ENVIRONMENT = {"ML_PLATFORM_DAGSTER_URL": "http://127.0.0.1:9", "USER": "ada"}


class Campaign:
    """One deployment, and the commands that are killed on it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = random.Random(seed)
        self.seconds: dict[str, float] = {}
        self.files = 1000
        self.trials: list[Trial] = []
        self.finished = 0
        os.environ["ML_PLATFORM_USE_CASES"] = str(folder / "use_cases")
        _import_all()

    def run(self, kind: str, kills: int) -> tuple[list[Line], list[str]]:
        write_use_case(self.folder)
        self._child(lambda: begin(self.folder))
        while len(self.trials) < kills:
            self._try_one()
        orphans, swept, left = self._child(lambda: _sweep(self.folder))
        differing, audit = self._child(lambda: differences_to_undisturbed(self.folder))
        return self._lines(kind, orphans, swept, left, differing, audit), self._notes(kind)

    def _try_one(self) -> None:
        self.files += 1
        drawn, day, file = self.random.random(), self.random.randrange(DAYS), self.files
        what, command, held = self._child(lambda: ready(self.folder, drawn, day, file))
        before = Found(**held)
        number = self.random.choice(SIGNALS)
        moment = self.random.uniform(0, SLOWER * self.seconds.get(what, FIRST_GUESS_SECONDS))
        started = time.monotonic()
        code, _ = self._command(command, moment, number)
        if code is not None and code >= 0 and code not in {1, 130, 143}:
            self.finished += 1
            self.seconds[what] = time.monotonic() - started
            return
        after = Found(**self._child(lambda: vars(look(self.folder))))
        started = time.monotonic()
        again, said = self._command(command, None, number)
        self.seconds[what] = time.monotonic() - started
        then = Found(**self._child(lambda: vars(look(self.folder))))
        self.trials.append(
            Trial(
                what, number.name, 0 if _was_done(what, said) else again or 0, said,
                _torn(before, after, then), then.wrong,
            )
        )  # fmt: skip

    def _command(
        self, command: list[str], moment: float | None, number: signal.Signals
    ) -> tuple[int | None, str]:
        """Run a command in a child, killed at a moment; its exit code and what it said last."""
        output = self.folder / "output.txt"
        child = os.fork()
        if not child:
            _become_command(command, output)
        if moment is not None:
            time.sleep(moment)
            if os.waitpid(child, os.WNOHANG) != (0, 0):
                return 0, ""
            os.kill(child, number)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if moment is not None and code == 0:
            return 0, ""
        return (-abs(code) if moment is not None else code), output.read_text(errors="replace")

    def _child(self, work: Callable[[], Any]) -> Any:
        """What a function returns in a process of its own, as JSON carries it."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.close(reading)
            try:
                announced = json.dumps({"is": work()})
            except BaseException:
                announced = json.dumps({"failed": traceback.format_exc()})
            with os.fdopen(writing, "w") as pipe:
                pipe.write(announced)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            announced = json.loads(pipe.read() or '{"failed": "the process ended"}')
        os.waitpid(child, 0)
        if "failed" in announced:
            raise RuntimeError(announced["failed"])
        return announced["is"]

    def _lines(
        self, kind: str, orphans: int, swept: int, left: int, differing: int, audit: int
    ) -> list[Line]:
        wrong: Counter[str] = Counter()
        for trial in self.trials:
            wrong.update(trial.wrong)
        failed = sum(trial.repeated != 0 for trial in self.trials)
        by_signal = Counter(trial.signal for trial in self.trials)
        by_command = Counter(trial.command for trial in self.trials)
        return [
            Line(
                f"{kind}: kills", str(len(self.trials)),
                ", ".join(f"{n} {s}" for s, n in sorted(by_signal.items())),
            ),
            Line(
                f"{kind}: commands killed", "",
                ", ".join(f"{n} {c}" for c, n in sorted(by_command.items())),
            ),
            Line(f"{kind}: repeated commands that failed", ratio=float(failed), limit=0),
            Line(
                f"{kind}: windows neither old nor new after a kill",
                ratio=float(sum(trial.torn for trial in self.trials)), limit=0,
            ),
            *(
                Line(f"{kind}: {name}", ratio=float(wrong[name]), limit=0)
                for name in Found.NAMES
            ),
            Line(f"{kind}: windows unlike an undisturbed lake's", ratio=float(differing), limit=0),
            Line(f"{kind}: breaks of the audit's chain", ratio=float(audit), limit=0),
            Line(f"{kind}: files of killed writers", str(orphans), f"{swept} swept"),
            Line(f"{kind}: files that nothing names afterwards", ratio=float(left), limit=0),
        ]  # fmt: skip

    def _notes(self, kind: str) -> list[str]:
        bad = [t for t in self.trials if t.repeated or t.torn or any(t.wrong.values())]
        return [
            f"{kind}: {t.command} after {t.signal}: exit {t.repeated}, torn {t.torn}, "
            f"{dict(t.wrong)} {t.said[-300:]}"
            for t in bad[:5]
        ]


def _become_command(command: list[str], output: Path) -> None:
    from ml_platform.cli import main

    signal.signal(signal.SIGINT, signal.default_int_handler)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = ["ml-platform", *command]
    code: object = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _was_done(what: str, said: str) -> bool:
    """Whether a command was refused since the one that was killed had come to its end."""
    done = {
        "approve": [" was promoted by "],
        "reject": [" was refused by "],
        # What it was rolled back to serves, and was the first: no other version continues.
        "rollback": ["already", "is the first that serves"],
        "promote": ["no version that nothing was decided about"],
    }
    return any(text in said for text in done.get(what, ()))


def _torn(before: Found, after: Found, then: Found) -> int:
    """Windows that hold neither what they held before nor what the whole command makes of them."""
    return sum(
        found not in {before.fingerprints.get(window), then.fingerprints.get(window)}
        for window, found in after.fingerprints.items()
    )


def _sweep(folder: Path) -> tuple[int, int, int]:
    """Files that nothing names, how many were swept, and how many are left."""
    from ml_platform.settings import Settings
    from ml_platform.storage import Lake
    from ml_platform.storage.orphans import find_orphans, sweep_orphans

    lake, now = Lake(Settings()), datetime.now(UTC) + timedelta(minutes=1)
    with lake.cursor() as cursor:
        found = len(find_orphans(lake, cursor, now).files)
    swept = len(sweep_orphans(lake, now).files)
    with lake.cursor() as cursor:
        left = len(find_orphans(lake, cursor, now).files)
    lake.close()
    return found, swept, left


def _import_all() -> None:
    """Once, so that each child begins with the command and not with imports."""
    import mlflow.sklearn
    import mlflow.store.model_registry.sqlalchemy_store
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import sklearn.ensemble  # noqa: F401

    import ml_platform.cli.printing
    import ml_platform.monitoring
    import ml_platform.scoring
    import ml_platform.training  # noqa: F401
