"""Processes of this machine that end with a `with` block, and waiting for them."""

import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
UP_WITHIN_SECONDS = 400


@contextmanager
def running(
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    is_up: Callable[[], bool] = lambda: True,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process, up when the block begins, that ends with it; what it says is in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Background jobs of a shell ignore SIGINT, and Dagster hands that on to SIGTERM.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
            )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        until(lambda: ended(process, log) or is_up(), command[0])
        yield process
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Raise RuntimeError, with what it said last, where a process has ended."""
    if process.poll() is not None:
        said = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {said}")
    return False


def until(look: Callable[[], Any], what: str) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: nothing within {UP_WITHIN_SECONDS} seconds; see the logs")
        time.sleep(0.3)
    return found


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
