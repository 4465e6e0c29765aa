"""A team that has the wheel and no checkout: a project of its own, by extras that it needs."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.request import Request, urlopen

import psutil  # type: ignore[import-untyped]
import pytest
import yaml

from tests.dagster_servers import answers, free_port
from tests.installations import build_wheel, closure, install
from tests.plain_tables import power
from tests.service_processes import wait_for

NOT_IN_A_SERVICE = {"dagster", "dagster-webserver", "mlflow", "matplotlib", "evidently", "pyspark"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def complete(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with what a new project asks for."""
    folder = tmp_path_factory.mktemp("environments") / "complete"
    return install(folder, wheel, "dagster", "serve", "monitoring")


@pytest.fixture(scope="module")
def project(complete: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose use case, `power`, is written from a file."""
    folder = tmp_path_factory.mktemp("teams") / "grid"
    folder.mkdir()
    run(complete, folder, "init")
    run(complete, folder, "new", "power", "--from", str(power(folder)))
    return folder


def run(python: Path, folder: Path, *arguments: str) -> str:
    """What a command says, which has to succeed."""
    done = call(python, folder, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(python: Path, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(python.with_name("ml-platform")), *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment(python), capture_output=True, text=True, check=False,
        timeout=600,
    )  # fmt: skip


def environment(python: Path) -> dict[str, str]:
    """The variables of a shell in which an environment is active, and nothing of this project."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("ML_PLATFORM", "PYTHON"))}
    base = python.parents[1]
    return {**kept, "VIRTUAL_ENV": str(base), "PATH": f"{base / 'bin'}:{os.environ['PATH']}"}


@contextmanager
def running(command: list[str], python: Path, folder: Path) -> Iterator[None]:
    """A process and all that it starts, until the block ends."""
    with (folder / "said.log").open("wb") as log:
        process = psutil.Popen(
            command, cwd=folder, env=environment(python), stdout=log, stderr=subprocess.STDOUT
        )
    try:
        yield
        assert process.poll() is None, (folder / "said.log").read_text()
    finally:
        ended = [*process.children(recursive=True), process]
        for each in ended:
            each.terminate()
        _, left = psutil.wait_procs(ended, timeout=60)
        for each in left:
            each.kill()
        process.wait()


def asked(url: str, body: object = None) -> object:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    with urlopen(Request(url, data, headers), timeout=60) as answer:
        return json.load(answer)


def test_an_extra_brings_what_it_needs_and_nothing_of_the_others():
    assert not NOT_IN_A_SERVICE & closure("serve").keys()
    assert not {*NOT_IN_A_SERVICE, "grpcio", "structlog", "prometheus-client"} & closure().keys()
    assert {"evidently", "matplotlib"} <= closure("monitoring").keys()
    assert {"dagster", "dagster-webserver", "mlflow"} <= closure("dagster").keys()


@pytest.mark.slow
def test_the_wheel_holds_two_packages_with_their_types_and_templates(wheel: Path):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if ".dist-info" not in name} == {
        "ml_platform",
        "ml_platform_dagster",
    }
    assert {
        "ml_platform/py.typed",
        "ml_platform_dagster/definitions.py",
        "ml_platform_dagster/assets/features.py",
        "ml_platform/spec/scaffold/project_files/.gitignore",
        "ml_platform/spec/scaffold/project_files/deploy/dagster.yaml",
    } <= set(names)


@pytest.mark.slow
def test_a_project_is_written_once_and_what_is_there_is_kept(complete: Path, project: Path):
    before = {file: file.read_bytes() for file in project.rglob("*") if file.is_file()}
    (project / "README.md").write_text("ours\n")
    said = run(complete, project, "init")
    assert "kept  README.md, which was there" in said
    assert "wrote" not in said
    assert (project / "README.md").read_text() == "ours\n"
    assert {file: file.read_bytes() for file in before if file.name != "README.md"} == {
        file: text for file, text in before.items() if file.name != "README.md"
    }
    (project / "taken").write_text("")
    refused = call(complete, project, "init", "taken")
    assert refused.returncode == 1
    assert (
        refused.stderr
        == "error: taken/.github/workflows/ci.yml: cannot be written: Not a directory\n"
    )


@pytest.mark.exhaustive
@pytest.mark.slow
def test_make_dev_shows_the_lineage_of_a_project(complete: Path, project: Path):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with running(["make", "dev", f"PORT={port}"], complete, project):
        wait_for(lambda: answers(f"{url}/server_info"), "the UI does not answer")
        query = "{ assetNodes { assetKey { path } dependencyKeys { path } } }"
        nodes = asked(f"{url}/graphql", {"query": query})["data"]["assetNodes"]  # type: ignore[index]
    reads = {
        node["assetKey"]["path"][-1]: {key["path"][-1] for key in node["dependencyKeys"]}
        for node in nodes
        if node["assetKey"]["path"][0] == "power"
    }
    assert "zone_history_features" in reads["predictions"]
    assert "predictions" in reads["drift_report"]


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_service_answers_without_dagster_and_matplotlib(
    wheel: Path, complete: Path, project: Path, tmp_path: Path
):
    core = install(tmp_path / "core", wheel)
    hours = ("--from", "2024-03-29-00:00", "--to", "2024-03-31-23:00")
    run(core, project, "backfill", "power", "--here", "--with-sources", *hours)
    cutoff = ("train", "power", "--cutoff", "2024-03-31-00:00")
    for command, package, extra in [
        (("serve",), "structlog", "serve"),
        (cutoff, "matplotlib", "monitoring"),
    ]:
        refused = call(core, project, *command)
        said = f"error: {package} is not installed: pip install 'ml-platform[{extra}]'\n"
        assert (refused.returncode, refused.stderr) == (1, said)
    run(complete, project, *cutoff)
    run(core, project, "promote", "power", "1")
    run(core, project, "publish", "power")

    served = install(tmp_path / "served", wheel, "serve")
    port, grpc_port = free_port(), free_port()
    command = [str(served.with_name("ml-platform")), "serve", "--workers", "1"]
    with running([*command, "--port", str(port), "--grpc-port", str(grpc_port)], served, project):
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: answers(f"{url}/v2/health/ready"), "the service is not ready")
        document = asked(f"{url}/openapi.json")
        path = document["paths"]["/predict/power"]["post"]  # type: ignore[index]
        example = path["requestBody"]["content"]["application/json"]["example"]
        answer = asked(f"{url}/predict/power", example)
    (row,) = answer["predictions"]  # type: ignore[index]
    assert 0 < row["predicted"] < 200


@pytest.mark.exhaustive
def test_a_use_case_has_an_environment_of_its_own(complete: Path, project: Path) -> None:
    uv = complete.with_name("uv")
    uv.symlink_to(Path(sys.executable).with_name("uv"))
    folder = project / "use_cases" / "power"
    (folder / "requirements.txt").write_text("tabulate==0.9.0\n")
    try:
        said = run(complete, project, "environment", "power")
        lock = (folder / "requirements.lock").read_text()
        assert f"{folder / 'requirements.lock'}: written; commit it" in said
        # The platform's versions, and what the use case asks for.
        assert f"scikit-learn=={version('scikit-learn')} " in lock
        assert "tabulate==0.9.0 " in lock
        own = project / ".venvs" / "power" / "bin" / "python"
        seen = "import ml_platform, ml_platform_dagster, tabulate; print(ml_platform.__file__)"
        done = subprocess.run(
            [str(own), "-c", seen], cwd=project, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert str(project / ".venvs" / "power" / "ml-platform") in done.stdout
        assert "power: ready" in run(complete, project, "environment")
        # Code of the use case runs there, whichever environment's command is called.
        assert "ok" in run(complete, project, "check", "power")
        locations = yaml.safe_load((project / ".venvs" / "workspace.yaml").read_text())
        (entry,) = [each["python_module"] for each in locations["load_from"]]
        assert (entry["working_directory"], entry["executable_path"]) == (str(project), str(own))
    finally:
        uv.unlink()
        (folder / "requirements.txt").unlink()
