"""Programs that are interrupted as by Ctrl-C in a terminal, which all their processes receive."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.service_processes import wait_for

ROOT = Path(__file__).parents[1]
# A job that a shell runs in the background ignores SIGINT.
RUN = "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
RUN += "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"


class Program:
    """A Python program in a session of its own; what it says goes to a file, no terminal."""

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, *arguments], cwd=ROOT, stdout=output,
                stderr=subprocess.STDOUT, env={**os.environ, **environment},
                start_new_session=True,
            )  # fmt: skip

    @property
    def said(self) -> str:
        return self._log.read_text()

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.said or self.process.poll() is not None, text)
        assert text in self.said, self.said

    def interrupt(self) -> int:
        """The exit code."""
        os.killpg(self.process.pid, signal.SIGINT)
        return self.process.wait(120)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
