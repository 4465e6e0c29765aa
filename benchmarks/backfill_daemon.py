"""A year of four tables through the real servers: by one command, by the daemon, run by run."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from benchmarks.result import Bench, Clock, Line, Result
from benchmarks.year import Year, prepared
from ml_platform.backfill.runs import TAG
from ml_platform.orchestrator import Orchestrator
from ml_platform.spec.windows import Window

TABLES = ("origin_features", "predictions", "drift_report", "performance_report")
ALONE_DAYS = 5
"""So few days are computed by a run each: the rest would take most of an hour."""
UP_WITHIN_SECONDS = 180


def run(bench: Bench) -> Result:
    """Time the same backfill by a range run, by the daemon's backfill, and by a run a partition."""
    year = prepared(bench)
    clock = Clock()
    for name, arguments in (("range", ()), ("daemon", ("--through-daemon",))):
        ours = _deployment(year, bench.folder / name)
        with _servers(ours, bench.folder / name / "dagster") as environment:
            command = [*_command(year, year.range), *arguments]
            clock.time(name, lambda c=command, e=environment: _call(c, e))
    ours = _deployment(year, bench.folder / "alone")
    with _servers(ours, bench.folder / "alone" / "dagster") as environment:
        clock.time("alone", lambda: _run_by_run(year, environment))
    return _result(year, clock)


def _deployment(year: Year, folder: Path) -> Year:
    ours = year.copy(folder)
    with ours.opened() as lake:
        ours.drop(lake, *TABLES, "computations")
    home = folder / "dagster"
    home.mkdir()
    shutil.copy("deploy/dagster.yaml", home)
    return ours


@contextmanager
def _servers(year: Year, home: Path) -> Iterator[dict[str, str]]:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}:{os.environ['PATH']}",
        "ML_PLATFORM_DATA": str(year.settings.root),
        "ML_PLATFORM_MLFLOW_TRACKING_URI": year.settings.tracking_uri,
        "ML_PLATFORM_DAGSTER_URL": url,
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
    }
    # Background jobs of a shell ignore SIGINT, and Dagster hands that on to SIGTERM.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    with (home / "dev.log").open("wb") as log:
        command = ["dg", "dev", "--host", "127.0.0.1", "--port", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    signal.signal(signal.SIGINT, before)
    try:
        until = time.monotonic() + UP_WITHIN_SECONDS
        while not _answers(url):
            if server.poll() is not None or time.monotonic() > until:
                raise RuntimeError((home / "dev.log").read_text(errors="replace")[-2000:])
            time.sleep(0.5)
        yield environment
    finally:
        server.terminate()
        server.wait(60)


def _answers(url: str) -> bool:
    try:
        with urlopen(f"{url}/server_info", timeout=5):
            return True
    except (URLError, OSError):
        return False


def _command(year: Year, window_range: Window) -> list[str]:
    calendar = year.use_case.calendar
    keys = [calendar.key(window) for window in calendar.windows(window_range)]
    name = year.use_case.name
    chosen = [*TABLES, "--only", "--from", keys[0], "--to", keys[-1]]
    return ["ml-platform", "backfill", name, *chosen]


def _call(command: list[str], environment: Mapping[str, str]) -> None:
    subprocess.run(command, env=dict(environment), check=True, stdout=sys.stderr)


def _run_by_run(year: Year, environment: Mapping[str, str]) -> None:
    """All runs at once into the queue, as a backfill without a policy launches them."""
    windows = list(year.use_case.calendar.windows(year.range))
    tables = [f"{year.use_case.name}/{table}" for table in TABLES]
    tags = {TAG: year.use_case.name}
    with Orchestrator(environment["ML_PLATFORM_DAGSTER_URL"]) as dagster:
        keys = [year.use_case.calendar.key(window) for window in _labelled(windows)]
        runs = [dagster.launch_range(tables, key, key, tags).id for key in keys]
        while not all(dagster.run(run).status.is_over for run in runs):
            time.sleep(0.5)


def _labelled(windows: list[Window]) -> list[Window]:
    """The last days but the two whose labels are still to come."""
    windows = sorted(windows, key=lambda window: window.start.astimezone(UTC))
    return windows[-2 - ALONE_DAYS : -2]


def _result(year: Year, clock: Clock) -> Result:
    by_range, by_daemon = clock.median("range"), clock.median("daemon")
    alone = clock.median("alone") / ALONE_DAYS
    lines = (
        Line(f"{year.days} days by one range run", f"{by_range:.0f} s"),
        Line(
            f"{year.days} days by the daemon's backfill", f"{by_range:.0f} s",
            f"{by_daemon:.0f} s", by_range / by_daemon,
        ),
        Line(
            f"{year.days} days by a run for each", f"{by_range:.0f} s",
            f"{alone * year.days:.0f} s", by_range / (alone * year.days),
        ),
    )  # fmt: skip
    notes = (
        f"{', '.join(TABLES)} of {year.days} partitions with the real web server, daemon and code "
        "server, from the command to its end.",
        f"A run for each partition was measured on {ALONE_DAYS} days, {alone:.1f} s each, and "
        "multiplied; each run is one process for all four tables.",
        "The backfill daemon looks for work every 30 seconds.",
    )
    return Result("A year's backfill through the servers", lines, notes)
