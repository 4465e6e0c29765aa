"""The images' files: linted, and each with the packages that it needs and no others."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HADOLINT = Path(sys.executable).with_name("hadolint")
IMAGES = ROOT / "deploy" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
LOCKED = re.compile(r"^([a-z0-9-]+)(?:\[[a-z0-9,-]+\])?==(\S+)", re.MULTILINE)
OF_DAGSTER = {"dagster", "dagster-webserver", "dagster-postgres", "dagster-k8s", "dagster-celery"}
NOT_IN_A_SERVICE = {*OF_DAGSTER, "mlflow", "matplotlib", "evidently", "plotly", "celery"}


def locked(name: str) -> dict[str, str]:
    """Packages of requirements/<name>.txt, with their versions."""
    return dict(LOCKED.findall((ROOT / "requirements" / f"{name}.txt").read_text()))


def linted(*files: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([HADOLINT, *files], capture_output=True, text=True, check=False)


def test_hadolint_finds_nothing() -> None:
    assert len(DOCKERFILES) == 5
    done = linted(*DOCKERFILES)
    assert done.returncode == 0, done.stdout


def test_hadolint_finds_a_planted_fault(tmp_path: Path) -> None:
    broken = tmp_path / "service.Dockerfile"
    text = (IMAGES / "service.Dockerfile").read_text()
    broken.write_text(text.replace("WORKDIR /srv/ml-platform", "WORKDIR srv/ml-platform"))
    assert "DL3000" in linted(broken).stdout


def test_the_service_has_no_package_of_dagster_and_draws_nothing() -> None:
    assert not NOT_IN_A_SERVICE & locked("service").keys()
    assert locked("code_location").keys() >= OF_DAGSTER
    assert {"mlflow", "psycopg", "boto3", "azure-storage-blob"} <= locked("mlflow").keys()
    assert not OF_DAGSTER & locked("mlflow").keys()


@pytest.mark.parametrize("name", ["code_location", "service", "mlflow", "base"])
def test_images_have_the_versions_that_the_tests_run_with(name: str) -> None:
    assert locked(name).items() <= locked("dev").items()


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_containers_run_as_any_user_of_group_0(file: Path) -> None:
    (user,) = re.findall(r"^USER (\d+):(\d+)$", file.read_text(), re.MULTILINE)
    assert user[0] != "0"
    assert user[1] == "0"


def test_nothing_but_what_images_hold_is_sent_to_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    first, *rest = (line for line in lines if not line.startswith("#"))
    assert first == "**"
    sent = {line.removeprefix("!") for line in rest if line.startswith("!")}
    copied = {
        source.split("/")[0]
        for file in DOCKERFILES
        for line in re.findall(r"^COPY (?!--from|\. )(.+)$", file.read_text(), re.MULTILINE)
        for source in line.split()[:-1]
    }
    assert {each.split("/")[0] for each in sent} == copied
