"""Every code block of README, CONTRIBUTING and docs runs here, or one table says why it cannot."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.main import get_command

from demo.source_system import flight_days, land_flights
from ml_platform.cli.app import app
from ml_platform.errors import PlatformError
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from tests import plain_tables

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
LANGUAGES = {"sh", "yaml", "json", "python", "sql", ""}
NOT_RUN = {
    "CONTRIBUTING.md:definitions.py     composition": "a tree of folders",
    "CONTRIBUTING.md:make install": "make is run by people and CI",
    "alerts.md:slack://…/…/…": "addresses of people's own channels",
    "alerts.md:# apprise.conf": "a file of Apprise, with people's own addresses",
    "alerts.md:flight_delays Will a flight": "what a command prints",
    "control.md:from datetime import datetime": "a DAG for Airflow, which is not installed here",
    'control.md:[\n  {"name": "Score"': "activities of Azure Data Factory, which is none of ours",
    "control.md:0 5 * * *": "a line of a crontab",
    "control.md:export AIRFLOW_CONN": "a setting of Airflow",
    "estimators.md:# model.py of a": "tests/test_docs_estimators.py fits them",
    "estimators.md:fit: model:fit": "tests/test_docs_estimators.py fits the models with it",
    "first_use_case.md:": "tests/test_docs_first_use_case.py runs them, one after the other",
    "notebook.md:flights": "tests/test_docs_notebook.py runs them, one after the other",
    "operations.md:export DAGSTER_HOME": "dg is Dagster's own program, for a running Dagster",
    "pipelines.md:ML_PLATFORM_KEPT_VERSION=true ML": "a code server of another checkout",
    "deployment.md:make images": "tests/test_deploy_containers.py builds them",
    "deployment.md:cd deploy/compose": "no Docker; tests/test_deploy_compose.py reads the file",
    "deployment.md:kubectl create": "no cluster; tests/test_deploy_helm.py renders the chart",
    "deployment.md:useradd": "it sets up a machine; tests/test_deploy_systemd.py reads the units",
    "CONTRIBUTING.md:make check": "the tests themselves",
    "production.md:callers ──": "a picture",
    "README.md:make demo": "make is run by people and CI",
    "projects.md:python3 -m venv": "it needs an index; tests/test_wheel.py has a wheel",
    "time.md:trip 7 in arrivals": "a picture",
    "secrets.md:[project.entry-points": "pyproject.toml of somebody's own package",
    "serving_access.md:apt-get install apache2": "tests/test_deploy_proxy.py sets the proxy up",
}
"""By page and what a block holds: why it cannot run in this test."""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def why_not(self) -> str | None:
        for place, reason in NOT_RUN.items():
            page, _, held = place.partition(":")
            if page == self.page and held in self.text:
                return reason
        return None


def blocks() -> Iterator[Block]:
    for page in PAGES:
        fence = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
        text = page.read_text(encoding="utf-8")
        for found in fence.finditer(text):
            line = text[: found.start()].count("\n") + 1
            yield Block(page.name, line, found[1], found[2])


BLOCKS = list(blocks())


def of(language: str) -> list[Any]:
    chosen = [b for b in BLOCKS if b.language == language and b.why_not is None]
    return [pytest.param(block, id=str(block)) for block in chosen]


def test_every_block_is_of_a_language_that_is_run_or_says_why_not() -> None:
    assert {block.language for block in BLOCKS} <= LANGUAGES
    assert [str(b) for b in BLOCKS if b.language in {"", "sql"} and b.why_not is None] == []
    used = {b.why_not for b in BLOCKS}
    assert [reason for reason in NOT_RUN.values() if reason not in used] == []


@pytest.mark.parametrize("block", of("yaml"))
def test_yaml_is_a_use_case(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "flight_delays"
    shutil.copytree(ROOT / "use_cases" / "flight_delays", folder)
    spec = folder / "use_case.yaml"
    shutil.copy(ROOT / "tests" / "documents_source.py", folder / "source.py")
    # As strings: YAML takes `on` for a truth.
    declared, said = (yaml.load(t, yaml.BaseLoader) for t in (spec.read_text(), block.text))
    if "partitions" in said:
        # Shortened: its queries read what it declares.
        (folder / "features" / "carrier.sql").write_text(
            "SELECT carrier, scheduled_at AS event_time, distance AS far FROM schedule\n"
        )
        (folder / "labels.sql").write_text(
            "SELECT flight_id, scheduled_at AS event_time, distance > 9 AS label, known_at "
            "FROM schedule\n"
        )
        declared = said
    else:
        declared = merged(declared, said)
    spec.write_text(yaml.safe_dump(declared))
    databases = Settings().databases | dict.fromkeys(
        ("erp", "reporting", "shop", "ice"), "sqlite:some.sqlite"
    )
    assert load_use_case(folder, databases).name == "flight_delays"


def merged(declared: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    def of(key: str, value: Any) -> Any:
        both = isinstance(value, dict) and isinstance(declared.get(key), dict)
        return merged(declared[key], value) if both else value

    return {**declared, **{key: of(key, value) for key, value in said.items()}}


@pytest.mark.parametrize("block", of("json"))
def test_json_is_json(block: Block) -> None:
    json.loads(block.text)


def commands(block: Block) -> list[list[str]]:
    lines = block.text.replace("\\\n", " ").splitlines()
    joined = re.sub(r"\n(?=  )", " ", "\n".join(lines))
    return [words for text in joined.splitlines() if (words := shlex.split(text, comments=True))]


@pytest.mark.parametrize("block", of("sh"))
def test_shell_is_the_shells(block: Block) -> None:
    checked = subprocess.run(
        ["bash", "-n"], input=block.text, text=True, capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    for words in commands(block):
        if words[0].endswith("ml-platform"):
            parse(words[1:])


def parse(words: list[str]) -> None:
    """Raises click's own errors for a command, an option or an argument that there is not."""
    group: Any = get_command(app)
    context = group.make_context("ml-platform", list(words))
    name, command, rest = group.resolve_command(context, [*context._protected_args, *context.args])
    while hasattr(command, "resolve_command"):
        context = command.make_context(name, rest, parent=context)
        left = [*context._protected_args, *context.args]
        if not left:
            return
        name, command, rest = command.resolve_command(context, left)
    command.make_context(name, rest, parent=context)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The flights of twelve days in a folder like this repository, with a champion."""
    root = tmp_path_factory.mktemp("docs")
    shutil.copytree(ROOT / "use_cases", root / "use_cases")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        patch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
        patch.setenv("USER", "ada")
        settings = Settings()
        land_flights(root / "data" / "landing" / "flight_delays", flight_days()[:14])
        plain_tables.tickets(root)
        shutil.move(root / "tickets.jsonl", root / "customers.csv")

        def run(*words: str) -> SimpleNamespace:
            from typer.testing import CliRunner

            found = CliRunner().invoke(app, list(words), input="n\n")
            return SimpleNamespace(code=found.exit_code, said=found.output, error=found.exception)

        days = "2013-01-01...2013-01-14"
        for words in (
            ("ingest", "flight_delays", "--range", days),
            ("features", "flight_delays", "--range", days),
            ("labels", "flight_delays", "--range", days),
            ("train", "flight_delays", "--cutoff", "2013-01-13"),
            ("promote", "flight_delays"),
            ("score", "flight_delays", "--partition", "2013-01-13"),
            ("publish", "flight_delays", "--range", days),
        ):
            done = run(*words)
            assert done.code == 0, (words, done.said, done.error)
        yield SimpleNamespace(root=root, run=run, settings=settings)


@pytest.mark.exhaustive
@pytest.mark.slow
def test_the_example_of_status_has_the_lines_that_it_prints(flights: Any) -> None:
    def lines(text: str) -> list[str]:
        names = (line[2:16].strip() for line in text.splitlines() if line.startswith("  "))
        return [name for name in names if name not in {"", "approval", "mirrors"}]

    (example,) = (b for b in BLOCKS if b.text.startswith("flight_delays Will a flight"))
    assert lines(example.text) == lines(flights.run("status", "flight_delays").said)


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("block", of("sh"))
def test_commands_do_what_they_say_or_refuse_in_a_sentence(block: Block, flights: Any) -> None:
    for words in commands(block):
        if words[0].endswith("ml-platform"):
            done = flights.run(*words[1:])
            refused = isinstance(done.error, PlatformError | SystemExit)
            assert done.code in {0, 1}, (words, done.said)
            assert done.code == 0 or refused, (words, done.error)


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("block", of("python"))
def test_python_runs(block: Block, flights: Any) -> None:
    given = ""
    if "sys.stdin" in block.text:
        given = flights.run("audit", "--json").said
        assert given
    done = subprocess.run(
        [sys.executable, "-c", block.text],
        input=given, text=True, capture_output=True, check=False, cwd=flights.root,
        env=None,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
