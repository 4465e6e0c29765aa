"""Two instances behind nginx, by the configuration that is shipped: restarts fail no request."""

import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest

from tests.dagster_servers import free_port
from tests.served import ROW, Deployment, deployed
from tests.service_processes import Instance, serving, wait_for

pytestmark = pytest.mark.slow
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
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self) -> None:
        with httpx2.Client(base_url=self.address, timeout=60) as client:
            while not self._over.is_set():
                try:
                    answer = client.post("/invocations", json=BODY)
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

    def go_on(self) -> None:
        """Wait until some more requests are answered."""
        until = self.answered + 50
        wait_for(lambda: self.answered >= until or bool(self.failed), "requests are answered")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("nginx")) as made:
        yield made


def test_a_rolling_restart_and_a_kill_fail_no_request(made: Deployment, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    settings = {"DRAIN_SECONDS": "2", "REQUESTS_PER_SECOND": "100000"}
    with ExitStack() as stack, nginx(tmp_path, ports) as address:

        def start(port: int) -> Instance:
            return stack.enter_context(serving(made, port, 1, **settings))

        instances = [start(port) for port in ports]
        with Load(address).running() as load:
            load.go_on()
            for number, port in enumerate(ports):
                instances[number].process.send_signal(signal.SIGTERM)
                instances[number].process.wait(120)
                load.go_on()
                instances[number] = start(port)
                load.go_on()
            # One dies with requests under way.
            instances[0].process.kill()
            instances[0].process.wait()
            load.go_on()
            assert load.failed == [], (tmp_path / "error.log").read_text()
    assert load.answered > 200


def test_what_changes_something_is_sent_once(made: Deployment, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    with serving(made, ports[0], 1) as first, nginx(tmp_path, ports) as address:
        # Nobody listens at the other: refused there, it goes to this one.
        for _ in range(4):
            answer = httpx2.post(f"{address}/control/trips/train", json={"cutof": "x"}, timeout=60)
            assert answer.status_code == 400
        first.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(httpx2.TimeoutException):
                httpx2.post(f"{address}/control/trips/train", json={"cutof": "x"}, timeout=2)
        finally:
            first.process.send_signal(signal.SIGCONT)
