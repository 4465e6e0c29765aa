"""Which environment a use case runs in, and what is said in all others."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from starlette.testclient import TestClient

from ml_platform.cli import main
from ml_platform.errors import EnvironmentMissing, EnvironmentRefused
from ml_platform.serving.worker import create_app
from ml_platform.settings import Settings
from ml_platform.spec.environments import (
    Environment,
    environment_of,
    environments_of,
    is_platforms,
    make_environment,
    runs_here,
    write_workspace,
)
from ml_platform.spec.loading import load_use_cases
from ml_platform.training.provenance import describe_code
from ml_platform_dagster.definitions import build_definitions
from tests.served import LOCAL, serving_settings
from tests.test_orchestrator_versions import git
from tests.trips_use_case import write_folder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Trips share the platform's environment, rides have one of their own, which is not made."""
    root = tmp_path / "use_cases"
    write_folder(root, "binary")
    write_folder(root, "binary", name="rides")
    (root / "rides" / "requirements.txt").write_text("scikit-learn>=1.8,<1.9\n")
    return Settings(data=tmp_path / "data", use_cases=root, environments=tmp_path / "venvs")


@pytest.fixture
def rides(settings: Settings) -> Environment:
    found = environment_of(settings, "rides", settings.use_cases / "rides")
    assert found is not None
    return found


@pytest.fixture
def run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Run the command line: exit code, output, errors."""
    for name in ("use_cases", "data", "environments"):
        monkeypatch.setenv(f"ML_PLATFORM_{name.upper()}", str(getattr(settings, name)))

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ml-platform", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        root = f"{settings.use_cases.parent}/"
        return int(ended.value.code or 0), said.out.replace(root, ""), said.err.replace(root, "")

    return run


def made(environment: Environment) -> Environment:
    """An environment that looks as if it had been made; nothing is installed in it."""
    environment.python.parent.mkdir(parents=True)
    environment.python.symlink_to(sys.executable)
    environment.mark()
    return environment


def test_a_folder_with_requirements_asks_for_an_environment(settings: Settings, rides: Environment):
    loaded = load_use_cases(settings.use_cases)
    assert environments_of(settings, loaded) == {"rides": rides}
    assert rides.folder == settings.environments / "rides"
    source = rides.requirements.rename(rides.requirements.with_suffix(".in"))
    (found,) = environments_of(settings, loaded).values()
    assert (found.requirements, found.lock.name) == (source, "requirements.lock")


def test_a_broken_use_case_has_an_environment_all_the_same(settings: Settings, rides: Environment):
    (settings.use_cases / "rides" / "use_case.yaml").write_text("description:\n")
    assert environments_of(settings, load_use_cases(settings.use_cases)) == {"rides": rides}


def test_an_environment_is_outdated_once_anything_that_it_was_made_from_changes(rides: Environment):
    assert rides.state == "missing"
    with pytest.raises(EnvironmentMissing, match=r"run `ml-platform environment rides`$"):
        rides.require_made()
    made(rides)
    assert rides.state == "ready"
    assert rides.require_made() == rides.python
    rides.lock.write_text("scikit-learn==1.8.0\n")
    assert rides.state == "outdated"
    rides.mark()
    assert rides.state == "ready"
    rides.requirements.write_text("scikit-learn<1.9\n")
    assert rides.state == "outdated"
    rides.unmark()
    assert rides.state == "missing"


def test_a_process_runs_the_use_cases_of_its_environment(
    settings: Settings, rides: Environment, monkeypatch: pytest.MonkeyPatch
):
    folder = settings.use_cases
    assert is_platforms()
    assert [name for name in ("rides", "trips") if runs_here(name, folder / name)] == ["trips"]
    monkeypatch.setattr(sys, "prefix", str(made(rides).folder))
    assert not is_platforms()
    assert [name for name in ("rides", "trips") if runs_here(name, folder / name)] == ["rides"]


def test_each_code_location_has_the_use_cases_of_its_environment_once(
    settings: Settings, rides: Environment, monkeypatch: pytest.MonkeyPatch
):
    def defined() -> tuple[set[str], set[str]]:
        built = build_definitions(settings)
        assets = {"/".join(spec.key.path) for spec in built.resolve_all_asset_specs()}
        found = built.get_repository_def()
        return assets, {each.name for each in (*found.sensor_defs, *found.schedule_defs)}

    assets, instigators = defined()
    assert {name for name in assets if not name.startswith("trips/")} == {"rides/environment"}
    assert "trips/model" in assets
    monkeypatch.setattr(sys, "prefix", str(made(rides).folder))
    of_rides, its_instigators = defined()
    assert {name.partition("/")[0] for name in of_rides} == {"rides"}
    assert instigators.isdisjoint(its_instigators)
    assert "lake_upkeep" in instigators
    assert {name.replace("rides", "trips") for name in its_instigators} == (
        instigators - {"lake_upkeep"}
    )


def test_the_workspace_lists_the_environments_that_are_there(
    settings: Settings, rides: Environment
):
    assert write_workspace(settings, [rides]) is None
    file = write_workspace(settings, [made(rides)])
    assert file == settings.environments / "workspace.yaml"
    (entry,) = yaml.safe_load(file.read_text())["load_from"]
    assert entry["python_module"]["executable_path"] == str(rides.python)
    assert entry["python_module"]["location_name"] == "ml-platform-rides"
    rides.unmark()
    assert write_workspace(settings, [rides]) is None
    assert not file.exists()


def test_a_command_says_what_to_run_where_the_environment_is_missing(run: Run):
    code, said, error = run("train", "rides", "--cutoff", "2024-03-21")
    assert (code, said) == (1, "")
    assert error == (
        "error: rides has an environment of its own (use_cases/rides/requirements.txt), which is "
        "not there: run `ml-platform environment rides`\n"
    )


def test_a_command_begins_again_in_the_environment(
    run: Run, rides: Environment, monkeypatch: pytest.MonkeyPatch
):
    class Replaced(Exception):
        pass

    def replaced(python: str, command: list[str]) -> None:
        raise Replaced(python, *command)

    # A process that becomes another would take the tests with it.
    monkeypatch.setattr("os.execv", replaced)
    made(rides)
    rides.lock.write_text("")
    code, said, error = run("train", "rides", "--cutoff", "2024-03-21")
    python = str(rides.python)
    command = (python, python, "-m", "ml_platform.cli", "train", "rides", "--cutoff", "2024-03-21")
    assert "Replaced: " + repr(tuple(command)).replace(f"{rides.folder.parents[1]}/", "") in error
    assert "rides: runs in its own environment, venvs/rides\n" in error
    assert (
        "warning: rides: use_cases/rides/requirements.txt, its lock file or the platform" in error
    )
    assert (code, said) == (1, "")


def test_a_command_in_the_environment_of_another_use_case_is_refused(
    run: Run, rides: Environment, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(sys, "prefix", str(made(rides).folder))
    code, _, error = run("train", "trips", "--cutoff", "2024-03-21")
    assert code == 1
    assert error == (
        "error: trips runs in the platform's environment, and venvs/rides is that of another use "
        "case; run the command with the platform's `ml-platform`\n"
    )
    code, _, error = run("environment")
    assert code == 1
    assert "environments are made with the platform's `ml-platform`" in error


def test_what_runs_nowhere_runs_anywhere(run: Run):
    code, _, error = run("history", "rides")
    assert (code, error) == (0, "")


def test_check_and_status_say_which_environment_a_use_case_has(run: Run, rides: Environment):
    code, said, error = run("check")
    assert code == 1
    assert said.startswith("trips: ok")
    assert "rides has an environment of its own" in error
    document = json.loads(run("status", "--json")[1])["use_cases"]
    assert document["trips"]["environment"] is None
    assert document["rides"]["environment"]["state"] == "missing"
    assert "its own, missing: ml-platform environment rides" in run("status")[1]
    made(rides)
    assert "environment" in (said := run("status")[1])
    assert "its own, missing" not in said


def test_environments_are_listed(run: Run, rides: Environment):
    assert run("environment") == (0, "rides: missing, venvs/rides\n", "")
    made(rides)
    code, said, _ = run("environment")
    assert code == 0
    assert said.startswith("rides: ready, venvs/rides\nvenvs/workspace.yaml: code locations")
    code, _, error = run("environment", "trips")
    assert code == 1
    assert error == (
        "error: trips runs in the platform's environment; for one of its own write "
        "use_cases/trips/requirements.txt with the packages that it needs\n"
    )
    rides.requirements.unlink()
    assert run("environment")[1] == "every use case runs in the platform's environment\n"


def test_a_service_names_the_command_that_serves_the_others(
    settings: Settings, rides: Environment, monkeypatch: pytest.MonkeyPatch
):
    def said(name: str) -> list[tuple[int, str]]:
        with TestClient(create_app(settings, serving_settings()), LOCAL) as client:
            answers = [
                client.post(f"/v2/models/{name}/infer", json={"inputs": []}),
                client.get(f"/v2/models/{name}"),
                client.post(f"/feedback/{name}", json={"items": []}),
                client.get(f"/review/{name}"),
                client.post(f"/control/{name}/train", json={}),
            ]
        return [(answer.status_code, answer.text) for answer in answers]

    for status, text in said("rides"):
        assert status == 404
        assert "rides runs in another environment than this service" in text
        assert "`ml-platform serve rides` starts the service that answers for it" in text
    monkeypatch.setattr(sys, "prefix", str(made(rides).folder))
    for status, text in said("trips"):
        assert status == 404
        assert "`ml-platform serve` starts the service that answers for it" in text


def test_only_a_use_case_with_an_environment_has_a_service_of_its_own(run: Run):
    code, _, error = run("serve", "trips")
    assert code == 1
    assert error == (
        "error: trips has no environment of its own; `ml-platform serve` serves it with all "
        "others\n"
    )
    code, _, error = run("serve", "rides")
    assert code == 1
    assert "run `ml-platform environment rides`" in error


def test_a_training_names_the_lock_of_its_environment(settings: Settings, rides: Environment):
    root = settings.use_cases
    git(root, "init", "-q")
    git(root, "commit", "-qm", "first", "--allow-empty")
    assert "requirements.sha256" not in describe_code(root / "rides")
    rides.lock.write_text("scikit-learn==1.8.0\n")
    assert "requirements.sha256" in describe_code(root / "rides")
    assert "requirements.sha256" not in describe_code(root / "trips")


def test_requirements_that_the_platform_excludes_are_refused_in_the_resolvers_words(
    rides: Environment,
):
    rides.requirements.write_text("pandas>=3\n")
    with pytest.raises(EnvironmentRefused) as refused:
        make_environment(rides)
    said = str(refused.value)
    assert said.startswith(f"{rides.requirements}: the environment of rides, with these and what ")
    assert "pandas>=3" in said
    assert "ml-platform" in said
    assert (rides.state, rides.locked) == ("missing", None)
    # Nothing of the attempt is left beside the requirements.
    left = {path.name for path in rides.requirements.parent.iterdir()} - {"__pycache__"}
    assert left == {"features", "labels.sql", "model.py", "requirements.txt", "use_case.yaml"}


def test_a_lock_file_that_is_out_of_date_is_refused_where_it_has_to_hold(
    run: Run, rides: Environment
):
    rides.lock.write_text("scikit-learn==1.8.0\n")
    code, _, error = run("environment", "rides", "--locked")
    assert code == 1
    assert error == (
        "error: use_cases/rides/requirements.lock is missing, or requirements.txt or the "
        "platform's lock has changed since it was written; run `ml-platform environment rides` "
        "and commit it\n"
    )
    assert (rides.state, rides.lock.read_text()) == ("missing", "scikit-learn==1.8.0\n")
