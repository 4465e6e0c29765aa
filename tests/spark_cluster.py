"""A standalone cluster of Spark: a master and two workers, each a process."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

PATIENCE_SECONDS = 300


def until(holds: Callable[[], object], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)


@dataclass(frozen=True)
class Cluster:
    url: str
    workers: tuple[int, ...]
    """Their processes."""

    def executors(self) -> list[psutil.Process]:
        return [
            child
            for worker in self.workers
            for child in psutil.Process(worker).children(recursive=True)
            if "CoarseGrainedExecutorBackend" in " ".join(child.cmdline())
        ]


@contextmanager
def running_cluster(root: Path) -> Iterator[Cluster]:
    root.mkdir(parents=True, exist_ok=True)
    processes: list[subprocess.Popen[bytes]] = []
    try:
        deploy = "org.apache.spark.deploy"
        log = root / "master.log"
        # Ports of its own choice; what it chose stands in its log.
        processes.append(
            _start(log, f"{deploy}.master.Master", "--host", "127.0.0.1", "--port", "0",
                   "--webui-port", "0")
        )  # fmt: skip
        until(lambda: _url(log), "the master")
        url = _url(log)
        assert url
        for number in (1, 2):
            folder = root / f"worker{number}"
            processes.append(
                _start(root / f"worker{number}.log", f"{deploy}.worker.Worker", "--host",
                       "127.0.0.1", "--webui-port", "0", "--cores", "1", "--memory", "1g",
                       "--work-dir", str(folder), url)
            )  # fmt: skip
        until(lambda: log.read_text().count("Registering worker") == 2, "two workers")
        yield Cluster(url, tuple(process.pid for process in processes[1:]))
    finally:
        for process in reversed(processes):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()


def _start(log: Path, *arguments: str) -> "subprocess.Popen[bytes]":
    import pyspark

    home = Path(pyspark.__file__).parent
    # The processes of the cluster know nothing of this one's environment.
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYSPARK"))}
    with log.open("wb") as out:
        return subprocess.Popen(
            [str(home / "bin" / "spark-class"), *arguments],
            stdout=out, stderr=subprocess.STDOUT,
            env={**clean, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1"},
        )  # fmt: skip


def _url(log: Path) -> str:
    found = re.search(r"spark://127\.0\.0\.1:\d+", log.read_text()) if log.exists() else None
    return found.group() if found else ""
