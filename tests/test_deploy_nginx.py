"""Two instances behind nginx, by the configuration that is shipped: restarts fail no request."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.dagster_servers import free_port
from tests.nginx_front import Load, nginx
from tests.served import Deployment, deployed
from tests.service_processes import Instance, serving

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("nginx")) as made:
        yield made


def test_a_rolling_restart_and_a_kill_fail_no_request(made: Deployment, tmp_path: Path) -> None:
    ports = (free_port(), free_port())
    # What a starved machine rejects for want of time is another matter than restarts.
    settings = {
        "DRAIN_SECONDS": "2",
        "REQUESTS_PER_SECOND": "100000",
        "LONGEST_WAIT_SECONDS": "60",
    }
    with ExitStack() as stack, nginx(tmp_path, ports) as address:

        def start(port: int) -> Instance:
            return stack.enter_context(serving(made, port, 1, **settings))

        instances = [start(port) for port in ports]
        with Load(address).running() as load:
            load.proceed()
            for number, port in enumerate(ports):
                instances[number].process.send_signal(signal.SIGTERM)
                instances[number].process.wait(120)
                load.proceed()
                instances[number] = start(port)
                load.proceed()
            # One dies with requests under way.
            instances[0].process.kill()
            instances[0].process.wait()
            load.proceed()
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
