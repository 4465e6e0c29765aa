"""Two use cases with two scikit-learns, in one Dagster, one lake and one registry.

Most of the time goes by while packages are linked and imported for the first time.
"""

import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sklearn

from ml_platform.errors import EnvironmentDiffers
from ml_platform.orchestrator import Orchestrator
from ml_platform.orchestrator.records import RunStatus
from ml_platform.orchestrator.versions import read_locations
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_cases
from ml_platform.storage import Lake
from tests.dagster_servers import ROOT, dagster_dev, free_port, project, start, stop
from tests.served import ROW
from tests.trips_use_case import write_folder

# Environments of their own are made for it, which takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

WITHIN_SECONDS = 300
FIRST, LAST, CUTOFF = "2024-03-01", "2024-03-24", "2024-03-21"
OLDER = "1.8"
PLATFORM, OWN = "ml-platform", "ml-platform-rides"
INSTIGATORS = """
query { repositoriesOrError { ... on RepositoryConnection { nodes {
  location { name } sensors { name } schedules { name }
} } } }
"""


@dataclass(frozen=True)
class Deployment:
    """Trips in the platform's environment, rides in one with an older scikit-learn."""

    variables: Mapping[str, str]
    dagster: Orchestrator
    settings: Settings

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The platform's own `ml-platform`."""
        return subprocess.run(
            [sys.executable, "-m", "ml_platform.cli", *arguments],
            cwd=ROOT, env=dict(self.variables), capture_output=True, text=True, check=False,
        )  # fmt: skip

    def compute(self, tables: list[str], first: str, last: str) -> None:
        """One run in Dagster, to its end."""
        run = self.dagster.launch_range(tables, first, last, {})
        until(lambda: self.dagster.run(run.id).status in ENDED, f"{tables} of {first} to {last}")
        failures = self.dagster.failures(run.id)
        assert self.dagster.run(run.id).status is RunStatus.success, failures


ENDED = {RunStatus.success, RunStatus.failure, RunStatus.canceled}


def until(holds: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + WITHIN_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {WITHIN_SECONDS} s: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Both use cases have a model that serves, made by Dagster's runs."""
    root = tmp_path_factory.mktemp("environments")
    variables = project(root, 1, 24, ML_PLATFORM_ENVIRONMENTS=str(root / "venvs"))
    # What a new environment imports is compiled once, not by each of its processes.
    variables.pop("PYTHONDONTWRITEBYTECODE", None)
    folder = root / "use_cases"
    write_folder(folder, "binary", name="rides")
    (folder / "rides" / "requirements.txt").write_text(f"scikit-learn~={OLDER}.0\n")
    landing = root / "data" / "landing"
    shutil.copytree(landing / "trips", landing / "rides")
    settings = Settings(
        data=root / "data", use_cases=folder, environments=root / "venvs", server_wait_seconds=0
    )
    made = subprocess.run(
        [sys.executable, "-m", "ml_platform.cli", "environment", "rides"],
        cwd=ROOT, env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    workspaces = ("-w", "workspace.yaml", "-w", str(root / "venvs" / "workspace.yaml"))
    with dagster_dev(variables, *workspaces) as url, Orchestrator(url) as dagster:
        found = Deployment(variables, dagster, settings)
        for name in ("trips", "rides"):
            tables = [f"{name}/{table}" for table in ("trips", "pace_features", "labels")]
            found.compute(tables, FIRST, LAST)
            found.compute([f"{name}/model", f"{name}/promotions"], CUTOFF, CUTOFF)
        yield found


def test_each_use_case_is_in_one_code_location_with_its_sensors_and_schedules(deployment):
    nodes = deployment.dagster.post(INSTIGATORS)["repositoriesOrError"]["nodes"]
    found = {
        node["location"]["name"]: {each["name"] for each in (*node["sensors"], *node["schedules"])}
        for node in nodes
    }
    assert found.keys() == {PLATFORM, OWN}
    assert found[PLATFORM].isdisjoint(found[OWN])
    assert {name.partition("_")[0] for name in found[OWN]} == {"rides"}
    assert {name.partition("_")[0] for name in found[PLATFORM]} == {"trips", "lake"}
    for name, location in {"trips": PLATFORM, "rides": OWN}.items():
        locations = read_locations(deployment.dagster.post, name)
        assert [each.name for each in locations] == [location]


def test_a_version_is_refused_in_the_environment_that_did_not_train_it(deployment):
    registry = Registry(deployment.settings)
    cases = load_use_cases(deployment.settings.use_cases).use_cases
    assert registry.load(cases["trips"], 1).version == 1
    here = sklearn.__version__
    said = (
        rf"rides version 1 was trained with scikit-learn {OLDER}\.\d+, here is {here}: it neither"
    )
    with pytest.raises(EnvironmentDiffers, match=said):
        registry.load(cases["rides"], 1)


def test_commands_run_in_the_environment_of_their_use_case(deployment):
    done = deployment.command("score", "rides", "--partition", "2024-03-23")
    assert done.returncode == 0, done.stderr
    assert "rides: runs in its own environment, " in done.stderr
    again = deployment.command("reproduce", "rides", "--partition", "2024-03-23")
    assert again.returncode == 0, again.stderr
    done = deployment.command("score", "trips", "--partition", "2024-03-23")
    assert (done.returncode, "environment" in done.stderr) == (0, False), done.stderr
    with closing(Lake(deployment.settings)) as lake, lake.cursor() as cursor:
        counts = [
            cursor.execute(
                "SELECT count(*) FROM "
                f"{lake.relation(cursor, name, 'predictions')} WHERE model_version = 1"
            ).fetchone()
            for name in ("trips", "rides")
        ]
    assert counts == [(40,), (40,)]
    checked = deployment.command("check")
    assert checked.returncode == 0, checked.stderr
    assert [line.partition(":")[0] for line in checked.stdout.splitlines()] == ["rides", "trips"]


def test_each_service_answers_for_the_use_cases_of_its_environment(deployment, tmp_path):
    asked = {"dataframe_records": [ROW]}
    with serving(deployment, tmp_path) as url:
        assert post(f"{url}/mlflow/trips/invocations", asked)[0] == 200
        status, said = post(f"{url}/mlflow/rides/invocations", asked)
        assert status == 404
        assert "`ml-platform serve rides` starts the service that answers" in json.dumps(said)
    with serving(deployment, tmp_path, "rides") as url:
        assert post(f"{url}/mlflow/rides/invocations", asked)[0] == 200
        assert post(f"{url}/mlflow/trips/invocations", asked)[0] == 404


def test_after_an_upgrade_the_gate_lets_a_version_of_the_new_environment_serve(deployment):
    def command(*arguments: str) -> str:
        done = deployment.command(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # Back to the platform's, which has a newer scikit-learn.
    (deployment.settings.use_cases / "rides" / "requirements.txt").unlink()
    refused = deployment.command("score", "rides", "--partition", "2024-03-24")
    assert refused.returncode == 1
    assert f"rides version 1 was trained with scikit-learn {OLDER}." in refused.stderr
    command("train", "rides", "--cutoff", "2024-03-24")
    assert "champion 1 cannot be compared with" in " ".join(command("promote", "rides").split())
    command("score", "rides", "--partition", "2024-03-24")
    assert command("environment") == "every use case runs in the platform's environment\n"


@contextmanager
def serving(deployment: Deployment, folder: Path, *use_case: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "ml_platform.cli", "serve", *use_case,
               "--port", str(port), "--grpc-port", "0", "--workers", "1"]  # fmt: skip
    log = folder / "service.log"
    service = start(command, deployment.variables, log)
    url = f"http://127.0.0.1:{port}"
    try:
        until(lambda: service.poll() is not None or is_ready(url), "the service is ready")
        assert service.poll() is None, log.read_text()
        yield url
    finally:
        stop(service)


def is_ready(url: str) -> bool:
    try:
        return post(f"{url}/v2/health/ready")[0] == 200
    except OSError:
        return False


def post(url: str, body: Any = None) -> tuple[int, Any]:
    """Status and answer of a request; without a body it is a GET."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return answer.status, json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or "null")
