"""Two instances behind nginx that are restarted in turn under load; and a start on a busy core.

`python -m benchmarks restarts`; it needs nginx (`apt-get install nginx-light`).
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from benchmarks.result import Bench, Line, Result
from benchmarks.serving import Contender, free_port, rows_of, service
from benchmarks.year import Year, prepared

CONFIGURATION = Path("deploy/nginx/predictions.conf")
ROUNDS, QUICK_ROUNDS = 5, 1
CLIENTS = 8
SETTLE_SECONDS = 2.0
"""Load between a restart and the next."""
BUSY_PROCESSES = 2
BUSY_LIMIT = 2.0 * (1 + BUSY_PROCESSES)
"""A core shared by three is three times as slow; twice that is still a start."""


@dataclass
class Client:
    """Predicts again and again over a connection that it keeps; a failed request is counted."""

    port: int
    asked: Contender
    over: threading.Event
    answered: int = 0
    problems: list[str] = field(default_factory=list)

    def ask(self) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"content-type": "application/json"}
        while not self.over.is_set():
            body = self.asked.bodies[self.answered % len(self.asked.bodies)]
            try:
                connection.request("POST", self.asked.path, body, headers)
                answer = connection.getresponse()
                answer.read()
                problem = "" if answer.status == 200 else f"status {answer.status}"
            except (OSError, HTTPException) as error:
                problem = repr(error)
                connection.close()
            self.answered += not problem
            self.problems += [problem] * bool(problem)
        connection.close()


def run(bench: Bench) -> Result:
    """Restart each instance in turn, some rounds; then start one on a core of its own and not."""
    year = prepared(bench).copy(bench.folder / "lake")
    rows = rows_of(year.registry.load(year.use_case, year.version))
    rounds = ROUNDS if bench.days is None else QUICK_ROUNDS
    clients = _rolling(bench, year, rows, rounds)
    answered, problems = sum(c.answered for c in clients), [p for c in clients for p in c.problems]
    alone, busy = _start_seconds(year, 0), _start_seconds(year, BUSY_PROCESSES)
    lines = (
        Line(f"failed requests of {answered:,}, {2 * rounds} restarts", f"{len(problems)}", "0",
             float(len(problems)), 0),
        Line(f"start until ready, one core shared with {BUSY_PROCESSES} busy processes, against "
             "the core alone", f"{busy:.0f} s", f"{alone:.0f} s", busy / alone, BUSY_LIMIT),
    )  # fmt: skip
    notes = (
        f"{CLIENTS} clients that keep their connections, two instances with a worker each, "
        f"{CONFIGURATION}. Each is ended by SIGTERM and started again; defaults, so it drains for "
        "5 seconds.",
        *(f"{problems.count(each)} times {each}" for each in sorted(set(problems))),
    )
    return Result("Restarts under load, and a start on a busy core", lines, notes)


def _rolling(bench: Bench, year: Year, rows: list[dict[str, object]], rounds: int) -> list[Client]:
    ports, over = (free_port(), free_port()), threading.Event()
    with ExitStack() as stack:
        port = stack.enter_context(_nginx(bench.folder, ports))
        instances = [ExitStack(), ExitStack()]
        for each in instances:
            stack.push(each)

        def start(number: int) -> tuple[int, Contender]:
            process, found = service(instances[number], year, 1, rows, [], port=ports[number])
            return process, found[0]

        processes, asked = zip(*(start(number) for number in range(2)), strict=True)
        clients = [Client(port, asked[0], over) for _ in range(CLIENTS)]
        threads = [threading.Thread(target=client.ask) for client in clients]
        for thread in threads:
            thread.start()
        running = list(processes)
        for number in [0, 1] * rounds:
            time.sleep(SETTLE_SECONDS)
            os.kill(running[number], signal.SIGTERM)
            # It waits for the end of the process.
            instances[number].close()
            running[number], _ = start(number)
        time.sleep(SETTLE_SECONDS)
        over.set()
        for thread in threads:
            thread.join()
    return clients


@contextmanager
def _nginx(folder: Path, instances: tuple[int, int]) -> Iterator[int]:
    program = shutil.which("nginx", path=f"/usr/sbin{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise RuntimeError("nginx is not installed: apt-get install nginx-light")
    port = free_port()
    shipped = CONFIGURATION.read_text(encoding="utf-8")
    for asked, used in ((8080, instances[0]), (8090, instances[1]), (8000, port)):
        shipped = re.sub(f"127.0.0.1:{asked}", f"127.0.0.1:{used}", shipped)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{folders}{shipped} }}\n",
        encoding="utf-8",
    )
    process = subprocess.Popen([program, "-c", str(file), "-e", str(folder / "error.log")])
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


def _start_seconds(year: Year, busy: int) -> float:
    """Seconds until a service with two workers is ready, on one core that others use as well."""
    core = {min(os.sched_getaffinity(0))}
    mine = os.sched_getaffinity(0)
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    for process in spinning:
        os.sched_setaffinity(process.pid, core)
    try:
        with ExitStack() as servers:
            # What is started inherits it.
            os.sched_setaffinity(0, core)
            begun = time.monotonic()
            service(servers, year, 2, [], [])
            return time.monotonic() - begun
    finally:
        os.sched_setaffinity(0, mine)
        for process in spinning:
            process.kill()
            process.wait()
