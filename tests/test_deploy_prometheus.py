"""Scrape, rules and dashboard on a real Prometheus, which a real service answers."""

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ml_platform.access import Grant, create_key
from tests.dagster_servers import free_port
from tests.served import LOGGED, ROW, deployed
from tests.trips_use_case import COMMIT

DEPLOY = Path(__file__).parent.parent / "deploy"
FILES = DEPLOY / "prometheus"
PROMETHEUS, PROMTOOL = shutil.which("prometheus"), shutil.which("promtool")
SECONDS = 30

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None or PROMTOOL is None,
        reason="prometheus is not installed; apt-get install prometheus",
    ),
]


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """Prometheus by the deployed files, in front of a service that asks for keys."""
    root = tmp_path_factory.mktemp("prometheus")
    port = free_port()
    with ExitStack() as ending:
        made = ending.enter_context(deployed(root / "served", declared=LOGGED, online=True))
        reader, predictor = (
            create_key(
                made.lake, role, [Grant(role, "*")], created_by="ada", commit=COMMIT,
                expires_at=datetime.now(UTC) + timedelta(days=1),
            )[1]
            for role in ("reader", "predictor")
        )  # fmt: skip
        served = ending.enter_context(made.served(authentication=True))
        (root / "key").write_text(reader)
        configured = (FILES / "prometheus.yaml").read_text()
        for usual, here in {
            "/etc/ml-platform/prometheus/rules.yaml": str(FILES / "rules.yaml"),
            "/etc/ml-platform/prometheus/key": str(root / "key"),
            "service.ml.example.org": served.http,
            "https": "http",
            "15s": "1s",
        }.items():
            assert usual in configured
            configured = configured.replace(usual, here)
        (root / "prometheus.yaml").write_text(configured)
        command = [
            str(PROMETHEUS),
            f"--config.file={root / 'prometheus.yaml'}",
            f"--storage.tsdb.path={root / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (root / "log").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        ending.callback(process.wait, 20)
        ending.callback(process.terminate)
        client = ending.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}/api/v1/"))
        url = f"http://{served.http}/mlflow/trips/invocations"
        bearer = {"Authorization": f"Bearer {predictor}"}

        def ask() -> None:
            for row, status in ((ROW, 200), ({**ROW, "distance": "far"}, 400)):
                body = {"dataframe_records": [row]}
                assert httpx2.post(url, json=body, headers=bearer, timeout=60).status_code == status

        # A rate needs two samples, and an increase one from before.
        counted = 'count_over_time(ml_platform_requests_total{status="200"}[1m])'
        wait_for(client, f"{counted} > 2", ask)
        yield client


def query(client: httpx2.Client, expression: str) -> list[dict[str, Any]]:
    answer = client.get("query", params={"query": expression}).json()
    assert answer["status"] == "success", (expression, answer)
    found: list[dict[str, Any]] = answer["data"]["result"]
    return found


def wait_for(client: httpx2.Client, expression: str, meanwhile: Callable[[], None]) -> None:
    until = time.monotonic() + SECONDS
    while True:
        meanwhile()
        try:
            if query(client, expression):
                return
        except (httpx2.TransportError, json.JSONDecodeError):
            # Until it is ready it answers in words.
            pass
        assert time.monotonic() < until, f"{expression} found nothing for {SECONDS} seconds"
        time.sleep(0.5)


def test_the_service_is_scraped_with_a_key_of_a_reader(prometheus: httpx2.Client) -> None:
    assert [found["value"][1] for found in query(prometheus, "up")] == ["1"]


def test_all_rules_can_be_evaluated(prometheus: httpx2.Client) -> None:
    (group,) = prometheus.get("rules").json()["data"]["groups"]
    states = {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}
    assert len(states) == 11
    assert {health for health, _ in states.values()} <= {"ok", "unknown"}
    # The features of the trips are those of a day of 2024.
    assert {name for name, (_, state) in states.items() if state != "inactive"} == {"FeaturesStale"}


def test_what_each_panel_shows_can_be_queried(prometheus: httpx2.Client) -> None:
    (dashboard,) = (DEPLOY / "grafana").glob("*.json")
    empty = set()
    for panel in json.loads(dashboard.read_text())["panels"]:
        for target in panel["targets"]:
            found = query(prometheus, target["expr"].replace("$use_case", ".*"))
            if not found:
                empty.add(panel["title"])
            # A label that a legend names and the answer lacks would be an empty word. Requests
            # about no use case lack that one, and a worker that is the only one has no pid.
            named = {*re.findall(r"{{(\w+)}}", target["legendFormat"])} - {"use_case", "pid"}
            assert all(named <= each["metric"].keys() for each in found), target
    # Of what has not happened here: reports that were not made, versions that were not tried.
    assert empty == {"Shadow and canary", "Drift", "Performance"}


def test_alerts_fire_when_they_should_and_not_before() -> None:
    command = [str(PROMTOOL), "test", "rules", str(FILES / "rules_test.yaml")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
