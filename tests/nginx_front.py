"""nginx as it is shipped, before two instances, and clients that ask it on and on."""

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.dagster_servers import free_port
from tests.served import ROW
from tests.service_processes import wait_for

CONFIGURATION = Path(__file__).parents[1] / "deploy" / "nginx" / "predictions.conf"
CLIENTS = 4
BODY = {"dataframe_records": [ROW]}


@contextmanager
def nginx(folder: Path, instances: tuple[int, int]) -> Iterator[str]:
    """nginx with the shipped configuration before two ports; its address."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    if program is None:
        pytest.skip("nginx is not installed; apt-get install nginx-light")
    port = free_port()
    shipped = CONFIGURATION.read_text()
    for asked, used in (("8080", instances[0]), ("8090", instances[1]), ("8000", port)):
        shipped, count = re.subn(f"127.0.0.1:{asked}", f"127.0.0.1:{used}", shipped)
        assert count == 1
    folders = "".join(
        f"{name}_temp_path {folder}/{name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off;\n{folders}{shipped} }}\n"
    )
    process = subprocess.Popen([program, "-c", str(file), "-e", str(folder / "error.log")])
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@dataclass
class Load:
    """Clients that predict on and on, over connections that they keep."""

    address: str
    body: Mapping[str, Any] = field(default_factory=lambda: BODY)
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> None:
        with httpx2.Client(base_url=self.address, timeout=60) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/invocations", json=self.body)
                    said = "" if answer.status_code == 200 else answer.text
                except httpx2.TransportError as error:
                    said = repr(error)
                with self._lock:
                    self.answered += not said
                    self.failed += [said] * bool(said)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        threads = [threading.Thread(target=self.ask) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._over.set()
            for thread in threads:
                thread.join(120)

    def proceed(self) -> None:
        """Wait until some more requests are answered."""
        until = self.answered + 50
        wait_for(lambda: self.answered >= until or bool(self.failed), "requests are answered")
