"""`ml-platform serve` as a process of its own, with its workers."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx2
import psutil  # type: ignore[import-untyped]

from tests.dagster_servers import free_port
from tests.served import Deployment


@dataclass(frozen=True)
class Instance:
    """A running service."""

    process: "subprocess.Popen[bytes]"
    address: str

    @property
    def workers(self) -> list[psutil.Process]:
        """Its workers, the one with the lowest number first."""
        children = psutil.Process(self.process.pid).children()
        return sorted(filter(_is_worker, children), key=lambda each: each.pid)

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"{self.address}/v2/health/ready", timeout=60).status_code == 200
        except httpx2.TransportError:
            return False


def _is_worker(process: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(process.cmdline())
    except psutil.Error:
        # It has ended since it was listed.
        return False


def wait_for(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 600
    while not is_so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@contextmanager
def serving(
    made: Deployment,
    port: int | None = None,
    workers: int = 2,
    *,
    more: Mapping[str, str] | None = None,
    is_awaited: bool = True,
    **changes: str,
) -> Iterator[Instance]:
    """A service that is ready; changes: its settings, in capitals.

    more: of the environment, besides. is_awaited: whether it has to be ready before it is yielded.
    """
    port, grpc_port = port or free_port(), free_port()
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        **{f"ML_PLATFORM_SERVING_{name}": value for name, value in changes.items()},
        **(more or {}),
    }
    command = [sys.executable, "-m", "ml_platform.cli", "serve", "--workers", str(workers)]
    ports = ["--port", str(port), "--grpc-port", str(grpc_port)]
    process = subprocess.Popen([*command, *ports], env=environment)
    instance = Instance(process, f"http://127.0.0.1:{port}")
    try:
        if is_awaited:
            wait_for(instance.is_ready, "the service is not ready")
        yield instance
    finally:
        workers = instance.workers if process.poll() is None else []
        process.kill()
        process.wait()
        psutil.wait_procs(workers, timeout=60)
