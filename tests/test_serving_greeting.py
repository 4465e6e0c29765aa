"""What the service prints once it answers: a request that works, or what to do to have one."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.dagster_servers import free_port
from tests.interrupted import Program
from tests.served import Deployment, deploy, deployed

pytestmark = pytest.mark.slow


@contextmanager
def started(made: Deployment, port: int, log: Path, **changes: str) -> Iterator[Program]:
    environment = {
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        "ML_PLATFORM_SERVING_GRPC_PORT": str(free_port()),
        **{f"ML_PLATFORM_SERVING_{name}": value for name, value in changes.items()},
    }
    command = ("-m", "ml_platform.cli", "serve", "--port", str(port))
    program = Program(command, environment, log)
    try:
        program.wait_for("ready")
        yield program
    finally:
        program.end()


@pytest.mark.exhaustive
def test_the_request_that_is_printed_is_answered_and_an_interrupt_says_how_to_start_it_again(
    tmp_path: Path,
) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with (
        deployed(tmp_path, online=True) as made,
        started(made, port, tmp_path / "log") as program,
    ):
        assert program.said.startswith(
            f"starting on {address}; {address}/docs shows the API as a page\n"
        )
        (line,) = [each for each in program.said.splitlines() if each.startswith("ready")]
        command = line.removeprefix("ready; try: ")
        assert command.startswith(f"curl -s {address}/predict/trips --json '")
        answered = subprocess.run(command, shell=True, capture_output=True, check=True)
        (prediction,) = json.loads(answered.stdout)["predictions"]
        assert 0 <= prediction["probability"] <= 1
        assert program.interrupt() == 130
        *_, last = program.said.splitlines()
        assert last == f"stopped; to start it again: ml-platform serve --port {port}"
        assert "Traceback" not in program.said


def test_without_a_champion_it_says_what_to_type(tmp_path: Path) -> None:
    made = deploy(tmp_path)
    with started(made, free_port(), tmp_path / "log", WORKERS="1") as program:
        assert "ready; no use case has a champion yet. To have one: ml-platform train trips" in (
            program.said
        )
        assert "then ml-platform promote trips; it is served at once\n" in program.said
        assert program.interrupt() == 130
        assert "Traceback" not in program.said
    made.lake.close()


def test_where_callers_need_a_key_it_says_how_to_make_one(tmp_path: Path) -> None:
    with (
        deployed(tmp_path) as made,
        started(made, free_port(), tmp_path / "log", AUTHENTICATION="true") as program,
    ):
        assert "ready; callers need a key, see: ml-platform keys create --help\n" in program.said
