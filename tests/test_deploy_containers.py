"""Images are built, and all that a deployment runs is run in them: land, train, score, serve, ask.

It takes half an hour and 8 GB. ML_PLATFORM_TEST_STORE names a folder that keeps what was built.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest
import yaml

from ml_platform.orchestrator import Orchestrator
from tests import dagster_servers as servers
from tests import trips_use_case as trips
from tests.containers import Container, Store, needs_buildah
from tests.served import ROW
from tests.service_processes import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, needs_buildah]

DATA, HOME = "/srv/ml-platform/data", "/srv/ml-platform/dagster"
IMAGES = ("code_location", "service", "mlflow", "proxy")
CLI = ("python", "-m", "ml_platform.cli")
CUTOFF, SCORED = "2024-03-20", "2024-03-20...2024-03-22"


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    kept = os.environ.get("ML_PLATFORM_TEST_STORE")
    with ExitStack() as stack:
        folder = kept or stack.enter_context(tempfile.TemporaryDirectory(dir="/var/tmp"))
        store = Store(Path(folder))
        there = store.buildah("images", "--format", "{{.Name}}:{{.Tag}}").split()
        if "localhost/base:bookworm" not in there:
            store.bootstrap()
        for name in IMAGES:
            if f"localhost/ml-platform/{name}:1" not in there:
                store.build(name)
        yield store


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Path]:
    """Folders that containers are given: data with what has landed, use cases, Dagster's home."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        root = Path(folder)
        for name in ("data", "mlflow", "dagster"):
            (root / name).mkdir()
        trips.write_folder(root / "use_cases", "binary")
        servers.land_trips(root / "data", 1, 24)
        (root / "dagster" / "dagster.yaml").write_bytes(
            (servers.ROOT / "deploy" / "dagster.yaml").read_bytes()
        )
        # Group 0 may write, which every user of a container is in.
        for path in (root, *root.rglob("*")):
            path.chmod(0o775 if path.is_dir() else 0o664)
        yield root


def up(url: str) -> None:
    wait_for(lambda: servers.answers(url), f"{url} does not answer")


def test_two_builds_are_alike(store: Store) -> None:
    store.build("service", "again")
    assert store.layers("service", "again") == store.layers("service")
    store.buildah("rmi", "localhost/ml-platform/service:again")


def test_the_service_lists_its_packages_and_has_none_of_dagster(store: Store) -> None:
    with store.container("service", {}, {}) as service:
        said = json.loads(service.run("cat", "/opt/ml-platform/sbom.cdx.json"))
        listed = {each["name"]: each["version"] for each in said["components"]}
        query = (
            "import importlib.metadata as m, json;"
            "print(json.dumps({d.name: d.version for d in m.distributions()}))"
        )
        there = json.loads(service.run("python", "-c", query))
    assert listed == there
    assert not {"dagster", "matplotlib", "mlflow", "evidently"} & there.keys()


def test_anybody_may_write_data_and_nothing_else(store: Store) -> None:
    with store.container("service", {}, {}) as service:
        service.run("sh", "-c", f"id -u | grep -q 12345 && touch {DATA}/x /tmp/x")
        refused = "touch /srv/ml-platform/x /opt/ml-platform/x /etc/x 2>/dev/null || echo refused"
        assert service.run("sh", "-c", refused) == "refused\n"


def test_a_deployment_in_containers_lands_trains_scores_and_answers(
    store: Store, deployment: Path
) -> None:
    tracking, web, http = (f"http://127.0.0.1:{servers.free_port()}" for _ in range(3))
    settings = {
        "ML_PLATFORM_USE_CASES": "/srv/use_cases",
        "ML_PLATFORM_MLFLOW_TRACKING_URI": tracking,
        "ML_PLATFORM_DAGSTER_URL": web,
        "ML_PLATFORM_SERVING_PORT": http.rpartition(":")[2],
        "ML_PLATFORM_SERVING_GRPC_PORT": str(servers.free_port()),
        "ML_PLATFORM_SERVING_WORKERS": "1",
    }
    mounts = {
        deployment / "data": DATA,
        deployment / "use_cases": "/srv/use_cases",
        deployment / "dagster": HOME,
    }
    with ExitStack() as stack:
        enter = stack.enter_context
        mlflow = enter(store.container("mlflow", {}, {deployment / "mlflow": DATA}))
        started = (*store.command_of("mlflow")[:-1], tracking.rpartition(":")[2])
        enter(mlflow.running(*started, log=deployment / "mlflow.log"))
        up(f"{tracking}/health")

        code = enter(store.container("code_location", settings, mounts))
        by_dagster(code, web, deployment)
        for command in (
            ("features", "trips", "--range", "2024-03-02...2024-03-22"),
            ("labels", "trips", "--range", "2024-03-02...2024-03-22"),
            ("train", "trips", "--cutoff", CUTOFF),
            ("promote", "trips"),
            ("score", "trips", "--range", SCORED),
        ):
            code.run(*CLI, *command)

        service = enter(store.container("service", settings, mounts))
        enter(service.running(*store.command_of("service"), log=deployment / "service.log"))
        up(f"{http}/health/ready")
        answer = httpx2.post(f"{http}/invocations", json={"dataframe_records": [ROW]}, timeout=120)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["predictions"]) == 1


def by_dagster(
    code_location: Container,
    web: str,
    deployment: Path,
) -> None:
    """Code location, web server and daemon start, and a run ingests what has landed."""
    port = servers.free_port()
    location = {"host": "127.0.0.1", "port": port, "location_name": "ml-platform"}
    workspace = yaml.safe_dump({"load_from": [{"grpc_server": location}]})
    (deployment / "dagster" / "workspace.yaml").write_text(workspace)
    grpc = code_location.store.command_of("code_location")
    grpc[grpc.index("4000")] = str(port)
    with ExitStack() as ended:
        for name, command in {
            "code": grpc,
            "daemon": ["dagster-daemon", "run", "-w", "dagster/workspace.yaml"],
            "web": [
                "dagster-webserver",
                "-w",
                "dagster/workspace.yaml",
                "-p",
                web.rpartition(":")[2],
            ],
        }.items():
            ended.enter_context(code_location.running(*command, log=deployment / f"{name}.log"))
        up(f"{web}/server_info")
        with Orchestrator(web) as dagster:
            wait_for(lambda: "trips/trips" in dagster.partitions(["trips/trips"]), "a location")
            dagster.launch_range(["trips/trips"], "2024-03-01", "2024-03-24", {})
            wait_for(
                lambda: all(run.status.is_over for run in dagster.runs()) and dagster.runs(),
                "the run's end",
            )  # fmt: skip
            found = dagster.partitions(["trips/trips"])["trips/trips"].materialized
            assert found[0][0] == "2024-03-01"
            assert found[-1][1] == "2024-03-24"
