"""Two instances behind nginx that are restarted in turn under load; and a start on a busy core.

`python -m benchmarks restarts`; it needs nginx (`apt-get install nginx-light`).
"""

import os
import subprocess
import sys
import time
from contextlib import ExitStack

from benchmarks.result import Bench, Line, Result
from benchmarks.serving import free_port, rows_of, service
from benchmarks.year import Year, prepared
from tests.nginx_front import CLIENTS, Load, nginx

ROUNDS, QUICK_ROUNDS = 5, 1
BUSY_PROCESSES = 2
BUSY_LIMIT = 2.0 * (1 + BUSY_PROCESSES)
"""A core shared by three is three times as slow; twice that is still a start."""


def run(bench: Bench) -> Result:
    """Restart each instance in turn, some rounds; then start one on a core of its own and not."""
    year = prepared(bench).copy(bench.folder / "lake")
    rounds = ROUNDS if bench.days is None else QUICK_ROUNDS
    load = _rolling(bench, year, rounds)
    alone, busy = _start_seconds(year, 0), _start_seconds(year, BUSY_PROCESSES)
    failed = len(load.failed)
    lines = (
        Line(f"failed requests of {load.answered + failed:,}, {2 * rounds} restarts", f"{failed}",
             "0", float(failed), 0),
        Line(f"start until ready, one core shared with {BUSY_PROCESSES} busy processes, against "
             "the core alone", f"{busy:.0f} s", f"{alone:.0f} s", busy / alone, BUSY_LIMIT),
    )  # fmt: skip
    notes = (
        f"{CLIENTS} clients that keep their connections, two instances with a worker each, behind "
        "deploy/nginx/predictions.conf. Each is ended by SIGTERM and started again; defaults, so "
        "it drains for 5 seconds.",
        *(f"{load.failed.count(each)} times {each}" for each in sorted(set(load.failed))),
    )
    return Result("Restarts under load, and a start on a busy core", lines, notes)


def _rolling(bench: Bench, year: Year, rounds: int) -> Load:
    rows = rows_of(year.registry.load(year.use_case, year.version))
    ports = (free_port(), free_port())
    with ExitStack() as stack:
        address = stack.enter_context(nginx(bench.folder, ports))
        instances = [stack.enter_context(ExitStack()) for _ in ports]

        def start(number: int) -> None:
            service(instances[number], year, 1, rows, [], port=ports[number])

        start(0)
        start(1)
        with Load(address, {"dataframe_records": rows[:1]}).running() as load:
            for number in [0, 1] * rounds:
                load.proceed()
                # SIGTERM, and waits for the end of the process.
                instances[number].close()
                load.proceed()
                start(number)
            load.proceed()
    return load


def _start_seconds(year: Year, busy: int) -> float:
    """Seconds until a service with two workers is ready, on one core that others use as well."""
    mine = os.sched_getaffinity(0)
    # What is started inherits it.
    os.sched_setaffinity(0, {min(mine)})
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        with ExitStack() as servers:
            begun = time.monotonic()
            service(servers, year, 2, [], [])
            return time.monotonic() - begun
    finally:
        os.sched_setaffinity(0, mine)
        for process in spinning:
            process.kill()
            process.wait()
