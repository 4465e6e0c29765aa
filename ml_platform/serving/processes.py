"""Worker processes that share one socket, and the parent that keeps so many of them alive.

A new worker takes seconds to import its libraries, on a starved machine a minute, in which it can
say nothing. So the parent waits for none of them: it looks at who has died, and at who has been
silent for longer than the settings allow.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.config import STARTUP_FAILURE

from ml_platform.errors import PlatformError
from ml_platform.serving.draining import (
    QUEUE_SECONDS,
    DrainingServer,
    has_waiting,
    refuse_connections,
)

HEARTBEAT_SECONDS = 0.5
ALONE_SECONDS = 30.0
"""How much longer than its parent waits a worker serves on that nobody stops."""
LOOK_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
"""How long a worker is not started again at most, where each one dies at once."""
SERVES, STARTS = b"+", b"-"
"""What a worker reports to its parent again and again."""
SPAWN = multiprocessing.get_context("spawn")
LOG = logging.getLogger("uvicorn.error")


class Processes:
    """The parent of some workers."""

    def __init__(
        self, config: dict[str, Any], workers: int, drain_seconds: float, silent_seconds: float
    ) -> None:
        self._config, self._drain_seconds = config, drain_seconds
        self._silent_seconds = silent_seconds
        self._socket = uvicorn.Config(**config).bind_socket()
        self._signals: list[int] = []
        self._pause, self._paused_until = 0.0, 0.0
        self._has_served = False
        self._workers = [self._start() for _ in range(workers)]

    def run(self) -> int:
        """Keep workers alive until SIGTERM or SIGINT, which raises KeyboardInterrupt.

        Returns the exit status.
        """
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._note)
        while not self._signals:
            self._look_for(LOOK_SECONDS)
            for number, worker in enumerate(self._workers):
                is_lost = worker.is_lost(self._silent_seconds)
                self._has_served |= worker.has_served
                if worker.process.exitcode == STARTUP_FAILURE and not self._has_served:
                    LOG.error("worker %s cannot start; see above", worker.process.pid)
                    self._stop(signal.SIGTERM)
                    return STARTUP_FAILURE
                if is_lost and time.monotonic() >= self._paused_until:
                    self._workers[number] = self._replaced(worker)
        self._stop(self._signals[0])
        if signal.SIGINT in self._signals:
            raise KeyboardInterrupt
        return 0

    @property
    def _alive(self) -> list["Worker"]:
        return [worker for worker in self._workers if worker.process.exitcode is None]

    def _look_for(self, seconds: float) -> None:
        """Wait until a worker has ended, but for no longer than so."""
        # Of one that has ended before it would be reported again and again.
        wait([worker.process.sentinel for worker in self._alive], seconds)

    def _note(self, number: int, _: FrameType | None) -> None:
        self._signals.append(number)

    def _start(self) -> "Worker":
        return Worker(self._config, self._socket, self._drain_seconds)

    def _replaced(self, worker: "Worker") -> "Worker":
        lived = time.monotonic() - worker.started_at
        self._pause = 0.0 if lived > LONGEST_PAUSE_SECONDS else min(
            max(2 * self._pause, LOOK_SECONDS), LONGEST_PAUSE_SECONDS
        )  # fmt: skip
        self._paused_until = time.monotonic() + self._pause
        LOG.warning(
            "worker %s %s; another one is started", worker.process.pid,
            "has ended" if worker.process.exitcode is not None
            else f"has been silent for {self._silent_seconds:g} s and is killed",
        )  # fmt: skip
        worker.kill()
        return self._start()

    def _stop(self, number: int) -> None:
        """Have all workers end: after SIGTERM, once they have served on for a while."""
        for worker in self._workers:
            worker.signal(number)
        if number == signal.SIGTERM and self._wait(self._drain_seconds):
            # They share the socket: one of them alone could not know when to do this.
            refuse_connections(self._socket)
            until = time.monotonic() + QUEUE_SECONDS
            while has_waiting(self._socket) and time.monotonic() < until:
                time.sleep(LOOK_SECONDS)
            for worker in self._workers:
                worker.signal(signal.SIGTERM)
        self._socket.close()
        while self._wait(LOOK_SECONDS):
            pass

    def _wait(self, seconds: float) -> bool:
        """Wait for workers to end, and pass signals on; whether some are left after a time."""
        until, passed_on = time.monotonic() + seconds, len(self._signals)
        while self._alive:
            remaining = until - time.monotonic()
            if remaining <= 0:
                return True
            self._look_for(min(remaining, LOOK_SECONDS))
            for number in self._signals[passed_on:]:
                passed_on += 1
                for worker in self._workers:
                    worker.signal(number)
        return False


class Worker:
    """A process that answers, as its parent sees it."""

    def __init__(
        self, config: dict[str, Any], listening: socket.socket, drain_seconds: float
    ) -> None:
        self._heard, said = SPAWN.Pipe(duplex=False)
        self.process = SPAWN.Process(
            target=_work, args=(config, listening, drain_seconds, os.getpid(), said)
        )
        self.process.start()
        said.close()
        self.started_at = time.monotonic()
        self.has_served = False
        """Whether it has come so far that it answers."""
        self._heard_at: float | None = None

    def is_lost(self, silent_seconds: float) -> bool:
        """Whether it has ended, or has said nothing for so long since it has begun to."""
        with suppress(EOFError, OSError):
            while self._heard.poll():
                self.has_served |= self._heard.recv_bytes() == SERVES
                self._heard_at = time.monotonic()
        if self.process.exitcode is not None:
            return True
        return self._heard_at is not None and time.monotonic() - self._heard_at > silent_seconds

    def signal(self, number: int) -> None:
        """Send it a signal, where it has not ended."""
        if number == signal.SIGINT and not self.has_served:
            # What it does until it answers takes seconds, and nobody waits for it any more.
            number = signal.SIGKILL
        if self.process.exitcode is None and self.process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    def kill(self) -> None:
        """End it and forget it."""
        self.process.kill()
        self.process.join()
        self.process.close()
        self._heard.close()


def _work(
    config: dict[str, Any],
    listening: socket.socket,
    drain_seconds: float,
    parent: int,
    said: Connection,
) -> None:
    """Answer, in a process of its own."""
    # What a terminal sends to a whole group is for the parent, who passes it on.
    os.setpgrp()
    server = DrainingServer(
        uvicorn.Config(**config), drain_seconds and drain_seconds + ALONE_SECONDS
    )
    threading.Thread(target=_say, args=(server, said, parent), daemon=True).start()
    try:
        # uvicorn raises it again once the server has stopped.
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    except PlatformError as error:
        LOG.error("worker %s cannot start: %s", os.getpid(), error)
        sys.exit(1)


def _say(server: uvicorn.Server, said: Connection, parent: int) -> None:
    """Report to the parent that this process lives; end it once the parent has gone."""
    while os.getppid() == parent:
        with suppress(OSError):
            said.send_bytes(SERVES if server.started else STARTS)
        time.sleep(HEARTBEAT_SECONDS)
    # The second one says not to drain.
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(HEARTBEAT_SECONDS)
