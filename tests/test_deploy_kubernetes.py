"""The prediction service of the Helm chart: what it starts, asks and mounts works."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ml_platform.access import Grant, create_key
from ml_platform.serving.draining import QUEUE_SECONDS
from ml_platform.serving.http.declared import HEALTH_PATHS
from ml_platform.settings import ServingSettings
from tests.charts import RELEASE, find, needs_helm
from tests.dagster_servers import free_port
from tests.served import LOGGED, ROW, Deployment, deployed
from tests.service_processes import wait_for
from tests.trips_use_case import COMMIT

ROOT = Path(__file__).parents[1]
LAST_SECONDS = 30
"""At least so long for the longest answer, and for what is written at the end."""
PREFIX, SERVING = "ML_PLATFORM_", "ML_PLATFORM_SERVING_"
OF_SERVERS = {"CATALOG", "LAKE_FILES", "LANDING", "EXTENSIONS", "SECRETS_SQL", "ONLINE_STORE",
              "MLFLOW_TRACKING_URI", "DAGSTER_URL"}  # fmt: skip
"""Settings that name servers of the cluster."""

pytestmark = needs_helm


def stateful_set() -> dict[str, Any]:
    found: dict[str, Any] = find("StatefulSet", "predictions")["spec"]
    return found


def pod() -> dict[str, Any]:
    found: dict[str, Any] = stateful_set()["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    (found,) = pod()["containers"]
    return dict(found)


def environment() -> dict[str, str]:
    names = [each["configMapRef"]["name"] for each in container()["envFrom"]
             if "configMapRef" in each]  # fmt: skip
    found: dict[str, str] = {}
    for name in names:
        found |= find("ConfigMap", name.removeprefix(f"{RELEASE}-"))["data"]
    return found


def serving() -> ServingSettings:
    own = {name.removeprefix(SERVING).lower(): value for name, value in environment().items()
           if name.startswith(SERVING)}  # fmt: skip
    return ServingSettings.model_validate(own)


def test_ports_are_those_that_the_service_listens_at() -> None:
    assert serving().authentication
    ports = {each["name"]: each["containerPort"] for each in container()["ports"]}
    assert ports == {"http": serving().port, "grpc": serving().grpc_port}
    targets = {each["targetPort"] for each in find("Service", "predictions")["spec"]["ports"]}
    assert targets == ports.keys()


def test_probes_ask_paths_that_are_answered_to_anybody_also_when_connections_are_out() -> None:
    probes = [
        container()[f"{each}Probe"]["httpGet"] for each in ("startup", "readiness", "liveness")
    ]
    assert [(each["path"], each["port"]) for each in probes] == [
        ("/health/live", "http"), ("/health/ready", "http"), ("/health/live", "http"),
    ]  # fmt: skip
    assert {each["path"] for each in probes} <= HEALTH_PATHS


def test_the_grace_period_follows_from_the_settings() -> None:
    needed = serving().drain_seconds + QUEUE_SECONDS + serving().body_seconds + LAST_SECONDS
    assert pod()["terminationGracePeriodSeconds"] >= needed
    # Whoever sends requests has seen it before the drain is over.
    probe = container()["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < serving().drain_seconds


def kubelet(port: int, probe: str) -> bool:
    """Whether a probe succeeds."""
    asked = container()[probe]
    try:
        answer = httpx2.get(
            f"http://127.0.0.1:{port}{asked['httpGet']['path']}",
            headers={"User-Agent": "kube-probe/1.34"}, timeout=asked.get("timeoutSeconds", 1),
        )  # fmt: skip
    except httpx2.HTTPError:
        return False
    return 200 <= answer.status_code < 400


@pytest.fixture(scope="module")
def made() -> Iterator[Deployment]:
    # Not below /tmp, which is one of the mounts.
    with (
        tempfile.TemporaryDirectory(dir="/var/tmp") as folder,
        deployed(Path(folder) / "servers", declared=LOGGED) as made,
    ):
        yield made


@contextmanager
def started(made: Deployment, port: int, inside: list[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """The container's command with its settings, where servers are those of a deployment."""
    data = made.root.parent / "data"
    data.mkdir(exist_ok=True)
    settings = made.settings
    own = {
        "CATALOG": settings.catalog_uri,
        "LAKE_FILES": settings.lake_files_uri,
        "LANDING": settings.landing_uri,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "DATA": str(data),
        "USE_CASES": str(settings.use_cases),
        "SERVING_PORT": str(port),
        "SERVING_GRPC_PORT": str(free_port()),
    }
    declared = {name: value for name, value in environment().items()
                if name.removeprefix(PREFIX) not in OF_SERVERS}  # fmt: skip
    python, *command = container()["command"]
    assert python == "python"
    process = subprocess.Popen(
        [*inside, sys.executable, *command],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{each["name"]: each["value"] for each in container()["env"]},
            **declared,
            **{PREFIX + name: value for name, value in own.items()},
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def live_through(made: Deployment, inside: list[str]) -> None:
    """A pod's life: it starts, is ready, answers, is asked to stop and has ended in time."""
    _, key = create_key(
        made.lake, "web shop", [Grant("predictor", "trips")], created_by="ada", commit=COMMIT,
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )  # fmt: skip
    port = free_port()
    with started(made, port, inside) as process:
        wait_for(lambda: kubelet(port, "startupProbe") or process.poll() is not None, "started")
        wait_for(lambda: kubelet(port, "readinessProbe"), "it is not ready")
        assert kubelet(port, "livenessProbe")
        url = f"http://127.0.0.1:{port}/invocations"
        sent = {"json": {"dataframe_records": [ROW]}, "headers": {"x-api-key": key}, "timeout": 60}
        assert httpx2.post(url, **sent).status_code == 200
        process.send_signal(signal.SIGTERM)
        wait_for(lambda: not kubelet(port, "readinessProbe"), "it does not say that it ends")
        # Whoever has not seen that yet is answered.
        assert httpx2.post(url, **sent).status_code == 200
        assert process.wait(pod()["terminationGracePeriodSeconds"]) == 0


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_container_starts_answers_probes_and_ends_in_its_grace_period(made: Deployment) -> None:
    live_through(made, [])


READ_ONLY = """
set -e
mount --make-rprivate /
for folder in "$DATA" "$SERVERS"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
mount -t tmpfs tmpfs /tmp
if touch /var/tmp/written 2>/dev/null; then echo "the root can be written to" >&2; exit 9; fi
exec "$@"
"""


@pytest.mark.exhaustive
@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="mounting takes root's rights, and unshare of util-linux",
)
def test_a_read_only_root_with_the_declared_mounts_is_enough(made: Deployment) -> None:
    mounts = {each["mountPath"] for each in container()["volumeMounts"]}
    assert mounts == {"/srv/ml-platform/data", "/tmp"}
    assert container()["securityContext"]["readOnlyRootFilesystem"]
    folder = made.root.parent
    places = f"DATA={folder / 'data'} SERVERS={made.root}"
    inside = ["unshare", "--mount", "env", *places.split(), "sh", "-c", READ_ONLY, "sh"]
    live_through(made, inside)
