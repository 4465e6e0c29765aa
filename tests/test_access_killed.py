"""Whoever is killed right after an action has left its row in the audit."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from ml_platform.access import Action, Audit
from tests.dagster_servers import free_port
from tests.served import Deployment, deploy

pytestmark = pytest.mark.slow

RUN = "5b0e0c5e-8d0a-4f3c-9a38-3b1f6c1f0a11"
CLI = [sys.executable, "-m", "ml_platform.cli"]
TRAINED = """
import time
from ml_platform.cli.app import app
from ml_platform.registry import Registry

def hang(self, *_):
    print("registered", flush=True)
    time.sleep(600)

Registry.load = hang
app(["train", "trips", "--cutoff", "2024-03-20"])
"""
"""The command, which gets no further than that the version is registered."""


class Dagster:
    """In place of its web server: does what it is asked, and then never says so.

    The real one answers within milliseconds, too fast for anybody to be killed in between.
    """

    def __init__(self) -> None:
        self.notified: queue.Queue[dict[str, Any]] = queue.Queue()
        """Variables of each mutation."""
        self._over = threading.Event()
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                said = json.dumps({"data": stub.answer(asked["query"], asked["variables"])})
                self.send_response(200)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        run = {
            "__typename": "Run", "runId": RUN, "status": "STARTED", "tags": [], "creationTime": 1.0,
            "assetSelection": [{"path": ["trips", "predictions"]}], "endTime": None,
        }  # fmt: skip
        if "mutation" in query:
            self.notified.put(variables)
            self._over.wait()
        if "query Assets" in query:
            repository = {"name": "r", "location": {"name": "l"}}
            return {
                "assetNodes": [
                    {"assetKey": key, "repository": repository, "tags": []}
                    for key in variables["keys"]
                ]
            }
        if "query RunById" in query:
            return {"runOrError": run}
        if "query Runs" in query:
            return {"runsOrError": {"__typename": "Runs", "results": [run]}}
        return {"partitionBackfillsOrError": {"__typename": "PartitionBackfills", "results": []}}

    def close(self) -> None:
        self._over.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def dagster() -> Iterator[Dagster]:
    made = Dagster()
    threading.Thread(
        target=made.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    yield made
    made.close()


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy(tmp_path_factory.mktemp("killed"))
    yield made
    made.lake.close()


@contextmanager
def killed(made: Deployment, url: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a deployment that does not outlive the block."""
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        "ML_PLATFORM_DAGSTER_URL": url,
        "ML_PLATFORM_SERVING_GRPC_PORT": "0",
        "USER": "ada",
    }
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()


def actions(made: Deployment, what: str) -> list[Action]:
    return [row.action for row in Audit(made.lake).verify() if row.action.what == what]


def test_a_service_that_is_killed_while_dagster_launches_or_ends_a_run(
    deployment: Deployment, dagster: Dagster
) -> None:
    for method, path, what in (
        ("POST", "/control/trips/train", "train"),
        ("DELETE", f"/control/runs/{RUN}", "end run"),
    ):
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        command = [*CLI, "serve", "--workers", "1", "--port", str(port)]
        with (
            ThreadPoolExecutor(1) as threads,
            killed(deployment, dagster.url, *command),
            httpx2.Client(base_url=address, timeout=60) as client,
        ):
            until = time.monotonic() + 120
            while not is_up(client):
                assert time.monotonic() < until
                time.sleep(0.2)
            asked = threads.submit(client.request, method, path, json={})
            notified = dagster.notified.get(timeout=60)
        assert isinstance(asked.exception(), httpx2.TransportError)
        (action,) = actions(deployment, what)
        assert (action.who, action.channel) == ("anonymous@127.0.0.1", "api")
        if what == "train":
            tags = {t["key"]: t["value"] for t in notified["params"]["executionMetadata"]["tags"]}
            assert action.details["request"] == tags["ml_platform/request"]
            assert action.object == "model, promotions"
        else:
            assert (action.object, notified["id"]) == (RUN, RUN)


def is_up(client: httpx2.Client) -> bool:
    try:
        return client.get("/health/live").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_command_that_is_killed_while_dagster_ends_a_backfill(
    deployment: Deployment, dagster: Dagster
) -> None:
    with killed(deployment, dagster.url, *CLI, "backfill", "trips", "--end"):
        assert dagster.notified.get(timeout=60) == {"id": RUN}
    (action,) = actions(deployment, "end backfill")
    assert (action.who, action.channel, action.object) == ("ada", "cli", RUN)


def test_a_command_that_is_killed_once_its_version_is_registered(
    deployment: Deployment, dagster: Dagster
) -> None:
    with killed(deployment, dagster.url, sys.executable, "-c", TRAINED) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"registered\n"
    (action,) = [action for action in actions(deployment, "train") if action.channel == "cli"]
    assert (action.who, action.details["cutoff"]) == ("ada", "2024-03-20")
    assert action.details["run"] == deployment.registry.tags(deployment.use_case, 1)["run_id"]
