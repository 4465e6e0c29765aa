"""docker compose: taken as it is, closed by default, with the settings and ports that there are."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config_schema

from ml_platform.settings import ServingSettings, Settings

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
PROGRAM = Path(sys.executable).with_name("docker-compose")
FILLED_IN = {
    "POSTGRES_PASSWORD": "first", "LAKE_PASSWORD": "second", "DAGSTER_PASSWORD": "third",
    "MLFLOW_PASSWORD": "fourth", "OIDC_ISSUER": "https://login.example.org/realms/ml",
    "OIDC_AUDIENCE": "ml-platform", "OIDC_KEYS": "https://login.example.org/realms/ml/keys",
}  # fmt: skip
SERVING, OTHERS = "ML_PLATFORM_SERVING_", "ML_PLATFORM_"


def config(
    folder: Path, compose: Path = COMPOSE, **filled_in: str
) -> "subprocess.CompletedProcess[str]":
    """What `docker compose config` makes of the file and of an example that is filled in."""
    lines = (COMPOSE.parent / ".env.example").read_text().splitlines()
    named = [line.partition("=") for line in lines if line and not line.startswith("#")]
    values = {name: filled_in.get(name, value) for name, _, value in named}
    file = folder / "filled_in.env"
    file.write_text("".join(f"{name}='{value}'\n" for name, value in values.items()))
    command = [
        PROGRAM, "--env-file", file, "--project-directory", COMPOSE.parent, "-f", compose,
        "config", "--format", "json",
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    done = config(tmp_path_factory.mktemp("compose"), **FILLED_IN)
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)["services"]
    return found


def test_a_password_that_nobody_has_set_is_refused(tmp_path: Path) -> None:
    done = config(tmp_path, **{**FILLED_IN, "LAKE_PASSWORD": ""})
    assert done.returncode != 0
    assert "LAKE_PASSWORD is missing a value" in done.stderr


def test_a_planted_fault_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "compose.yaml"
    broken.write_text(COMPOSE.read_text().replace("stop_grace_period", "stop_grace_perid"))
    done = config(tmp_path, broken, **FILLED_IN)
    assert done.returncode != 0
    assert "stop_grace_perid" in done.stderr


def test_only_loopback_is_published(services: dict[str, dict[str, Any]]) -> None:
    published = {
        (name, port["host_ip"], port["published"])
        for name, service in services.items()
        for port in service.get("ports", [])
    }
    assert published == {("proxy", "127.0.0.1", port) for port in ("443", "80", "8080", "8081")}


def test_containers_have_no_rights(services: dict[str, dict[str, Any]]) -> None:
    # PostgreSQL's own image changes its user as it starts.
    for name, service in services.items():
        if name != "postgres":
            assert service["read_only"], name
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_what_people_see_is_behind_the_login_whose_files_name_the_same_ports(
    services: dict[str, dict[str, Any]],
) -> None:
    behind = {name for name, each in services.items()
              if each.get("network_mode") == "service:proxy"}  # fmt: skip
    assert behind == {"webserver", "mlflow", "pages", "predictions"}
    apache = (ROOT / "deploy" / "proxy" / "apache.conf").read_text()
    assert "http://127.0.0.1:3000/" in apache
    assert services["webserver"]["command"][3:5] == ["--port", "3000"]


def test_settings_are_those_that_there_are(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        variables = service.get("environment", {})
        own = {name.removeprefix(OTHERS).lower(): value for name, value in variables.items()
               if name.startswith(OTHERS) and not name.startswith(SERVING)}  # fmt: skip
        serving = {name.removeprefix(SERVING).lower(): value for name, value in variables.items()
                   if name.startswith(SERVING)}  # fmt: skip
        Settings.model_validate(own)
        if "oidc_grants" in serving:
            serving["oidc_grants"] = json.loads(serving["oidc_grants"])
        ServingSettings.model_validate(serving)


def test_dagster_takes_its_instance_and_its_location(
    services: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DAGSTER_POSTGRES", "DAGSTER_FILES"):
        monkeypatch.setenv(name, services["daemon"]["environment"][name])
    text = (ROOT / "deploy" / "dagster_postgres.yaml").read_text()
    checked = process_config(dagster_instance_config_schema(), yaml.safe_load(text))
    assert checked.success, checked.errors
    (entry,) = yaml.safe_load((COMPOSE.parent / "workspace.yaml").read_text())["load_from"]
    assert entry["grpc_server"]["host"] in services
