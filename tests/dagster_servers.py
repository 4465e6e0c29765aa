"""The real Dagster servers on a small use case, for the tests that need them."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest.mock import patch
from urllib.request import urlopen

import dagster as dg
import psutil  # type: ignore[import-untyped]

from ml_platform.settings import Settings
from tests import trips_use_case as trips

ROOT = Path(__file__).parents[1]
UP_WITHIN_SECONDS = 400
DOWN_WITHIN_SECONDS = 60


def project(root: Path, first: int, last: int, **variables: str) -> dict[str, str]:
    """A project of its own below `root`, as the environment of its processes.

    A use case, `trips`, landing files for the days of March 2024 from first to last, a Dagster
    home. variables: more settings, by the names of their environment variables.
    """
    trips.write_folder(root / "use_cases", "binary")
    data = root / "data"
    land_trips(data, first, last)
    return {**environment_of(data, root / "use_cases", data / "dagster"), **variables}


def environment_of(data: Path, use_cases: Path, home: Path) -> dict[str, str]:
    """The environment of the processes of a deployment, whose Dagster home is made."""
    home.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ML_PLATFORM_DATA": str(data),
        "ML_PLATFORM_USE_CASES": str(use_cases),
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
        "DAGSTER_DISABLE_TELEMETRY": "1",
    }


def land_trips(data: Path, first: int, last: int, seed: int = 0) -> None:
    """One landing file for each day; another seed corrects the days that have one."""
    folder = Path(Settings(data=data).landing_uri) / "trips"
    folder.mkdir(parents=True, exist_ok=True)
    rows = trips.trips(first, last, seed=seed)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder / f"{day}.csv", index=False)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(command: list[str], environment: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """A process that can be stopped by SIGTERM; what it says goes to a file."""
    # Background jobs of a shell ignore SIGINT, and Dagster hands that on to SIGTERM.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            return subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
            )
    finally:
        signal.signal(signal.SIGINT, before)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process, and then what it has started and left behind."""
    started: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        started = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(DOWN_WITHIN_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for signaled in (psutil.Process.terminate, psutil.Process.kill):
        left = [each for each in started if each.is_running()]
        for each in left:
            with suppress(psutil.NoSuchProcess):
                signaled(each)
        psutil.wait_procs(left, DOWN_WITHIN_SECONDS)


@contextmanager
def dagster_dev(environment: Mapping[str, str], *options: str) -> Iterator[str]:
    """`dg dev`: web server, daemon and code server; yields the address once it answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = Path(environment["DAGSTER_HOME"]) / "dev.log"
    command = ["dg", "dev", "--host", "127.0.0.1", "--port", str(port), *options]
    server = start(command, environment, log)
    try:
        deadline = time.monotonic() + UP_WITHIN_SECONDS
        while not answers(f"{url}/server_info"):
            said = log.read_text(errors="replace")[-3000:]
            assert server.poll() is None, f"dg dev ended: {said}"
            assert time.monotonic() < deadline, f"dg dev does not answer: {said}"
            time.sleep(0.5)
        yield url
    finally:
        stop(server)


def finished_ticks(environment: Mapping[str, str], name: str) -> int:
    """How often a schedule or sensor has looked, whatever came of it."""
    home = environment["DAGSTER_HOME"]
    # The storages that dagster.yaml names take their folder from the environment.
    with (
        patch.dict(os.environ, DAGSTER_HOME=home),
        dg.DagsterInstance.from_config(home) as instance,
    ):
        return sum(
            tick.is_completed
            for state in instance.all_instigator_state()
            if state.instigator_name == name
            for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id)
        )


def answers(url: str) -> bool:
    """Whether something answers there, and not with an error."""
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False
