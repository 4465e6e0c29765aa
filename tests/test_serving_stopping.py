"""The service is stopped, killed and starved: nobody who asks it notices more than he has to."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import psutil  # type: ignore[import-untyped]
import pytest

from tests.dagster_servers import free_port
from tests.served import ROW, Deployment, deployed
from tests.service_processes import Instance, serving, wait_for

pytestmark = pytest.mark.slow
DRAIN_SECONDS = "2"
CLIENTS = 4


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("stopping")) as made:
        yield made


def ask(instance: Instance, *, keeps_alive: bool) -> list[str]:
    """Ask until nobody listens; what failed otherwise."""
    failed = []
    while True:
        with httpx2.Client(base_url=instance.address, timeout=60) as client:
            try:
                while True:
                    answer = client.post("/invocations", json={"dataframe_records": [ROW]})
                    if answer.status_code != 200:
                        failed.append(answer.text)
                    if not keeps_alive:
                        break
            except httpx2.ConnectError as error:
                if _is_refused(error):
                    return failed
                failed.append(repr(error))
            except httpx2.TransportError as error:
                failed.append(repr(error))


def _is_refused(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) == errno.ECONNREFUSED:
            return True
        error = error.__cause__ or error.__context__
    return False


@pytest.mark.parametrize("keeps_alive", [False, True])
def test_nobody_is_reset_by_a_service_that_is_asked_to_stop(
    made: Deployment, keeps_alive: bool
) -> None:
    with (
        serving(made, DRAIN_SECONDS=DRAIN_SECONDS) as instance,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        asked = [clients.submit(ask, instance, keeps_alive=keeps_alive) for _ in range(CLIENTS)]
        was_ready, said_no = instance.is_ready(), False
        instance.process.send_signal(signal.SIGTERM)
        while instance.process.poll() is None:
            try:
                answer = httpx2.get(f"{instance.address}/v2/health/ready", timeout=60)
                said_no |= answer.status_code == 503
                assert (
                    httpx2.get(f"{instance.address}/v2/health/live", timeout=60).status_code == 200
                )
            except httpx2.TransportError:
                continue
        assert was_ready
        assert said_no
        assert [failed for each in asked for failed in each.result(60)] == []


def test_workers_end_with_a_parent_that_is_killed(made: Deployment) -> None:
    with serving(made, DRAIN_SECONDS=DRAIN_SECONDS) as instance:
        workers = instance.workers
        assert len(workers) == 2
        instance.process.kill()
        instance.process.wait()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert alive == []
        assert not instance.is_ready()


@pytest.mark.exhaustive
def test_a_worker_that_dies_is_replaced_while_the_other_answers(made: Deployment) -> None:
    with serving(made, DRAIN_SECONDS=DRAIN_SECONDS) as instance:
        first, second = instance.workers
        first.kill()
        wait_for(lambda: len(instance.workers) == 2 and first not in instance.workers, "replaced")
        assert second in instance.workers
        assert instance.is_ready()


@pytest.mark.exhaustive
def test_a_worker_that_is_silent_is_killed_when_it_has_been_for_as_long_as_is_set(
    made: Deployment,
) -> None:
    with serving(made, SILENT_SECONDS="3", DRAIN_SECONDS="0") as instance:
        first, second = instance.workers
        first.suspend()
        psutil.wait_procs([first], timeout=60)
        assert not first.is_running()
        wait_for(lambda: len(instance.workers) == 2, "replaced")
        assert second in instance.workers


@pytest.mark.exhaustive
def test_a_worker_that_is_starved_for_a_while_stays(made: Deployment) -> None:
    with serving(made, DRAIN_SECONDS=DRAIN_SECONDS) as instance:
        before = instance.workers
        before[0].suspend()
        resumed = threading.Timer(7.0, before[0].resume)
        resumed.start()
        resumed.join()
        wait_for(instance.is_ready, "ready")
        assert instance.workers == before


@pytest.mark.exhaustive
def test_an_interrupt_stops_at_once(made: Deployment) -> None:
    with serving(made, DRAIN_SECONDS="600") as instance:
        instance.process.send_signal(signal.SIGTERM)
        wait_for(lambda: not instance.is_ready(), "draining")
        assert instance.process.poll() is None
        instance.process.send_signal(signal.SIGINT)
        assert instance.process.wait(60) == 130


def test_a_service_that_cannot_start_says_why_and_ends(tmp_path: Path, made: Deployment) -> None:
    port = free_port()
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(tmp_path / "none"),
        "ML_PLATFORM_SERVING_TLS_CERT": str(tmp_path / "no.pem"),
        "ML_PLATFORM_SERVING_TLS_KEY": str(tmp_path / "no.key"),
    }
    command = [sys.executable, "-m", "ml_platform.cli", "serve", "--port", str(port)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 1
    assert "no.pem" in done.stderr
    assert "Traceback" not in done.stderr
