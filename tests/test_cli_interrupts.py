"""Ctrl-C ends a command in one line, which says what to type next."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
import typer
from typer.testing import CliRunner

from ml_platform.cli.interrupts import Interruptible
from tests.dagster_servers import free_port, project
from tests.interrupted import Program

COMMAND = ("-m", "ml_platform.cli")
ENDLESS = "SELECT sum(a.range * b.range) FROM range(1000000) a, range(10000000) b"


@pytest.fixture(autouse=True)
def _interrupts_arrive() -> Iterator[None]:
    """The handler that Python starts with, whatever other tests of the process have left."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    blocked = signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    signal.signal(signal.SIGINT, handler)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train", "interrupted; to run it again: ml-platform train 'a b'"),
        ("backfill", "interrupted; call it again and it continues: ml-platform backfill 'a b'"),
        ("serve", "stopped; to start it again: ml-platform serve 'a b'"),
    ],
)
def test_a_query_that_is_interrupted_is_an_interrupt(
    command: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = typer.Typer(cls=Interruptible)
    started = threading.Event()

    @app.callback()
    def group() -> None: ...

    @app.command(command)
    def run(_: str) -> None:
        started.set()
        duckdb.connect().execute(ENDLESS).fetchall()

    def interrupt() -> None:
        started.wait()
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sys, "argv", ["somewhere/ml-platform", command, "a b"])
    monkeypatch.setattr("shutil.which", lambda _: "somewhere/ml-platform")
    handler = signal.getsignal(signal.SIGINT)
    threading.Thread(target=interrupt).start()
    done = CliRunner().invoke(app, [command, "a b"])
    assert (done.exit_code, done.stderr) == (130, f"{said}\n")
    assert signal.getsignal(signal.SIGINT) is handler


def test_what_a_library_makes_of_an_interrupt_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    app = typer.Typer(cls=Interruptible)

    @app.callback()
    def group() -> None: ...

    @app.command()
    def costs(fails: bool = False) -> None:
        if not fails:
            handler = signal.getsignal(signal.SIGINT)
            assert callable(handler)
            with contextlib.suppress(KeyboardInterrupt):
                # Called, as Python calls it: a signal may wait while others block it.
                handler(signal.SIGINT, None)
        # As DuckDB does where a query was interrupted.
        raise RuntimeError("Query interrupted")

    monkeypatch.setattr(sys, "argv", ["ml-platform", "costs"])
    done = CliRunner().invoke(app, ["costs"])
    assert (done.exit_code, done.stderr) == (
        130,
        "interrupted; to run it again: ml-platform costs\n",
    ), repr(done.exception)
    done = CliRunner().invoke(app, ["costs", "--fails"])
    assert isinstance(done.exception, RuntimeError)


def test_what_to_type_is_a_path_where_the_command_is_not_on_the_path(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = typer.Typer(cls=Interruptible)

    @app.callback()
    def group() -> None: ...

    @app.command()
    def costs() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", [".venv/bin/ml-platform", "costs"])
    monkeypatch.setenv("PATH", "/nowhere")
    done = CliRunner().invoke(app, ["costs"])
    assert done.stderr == "interrupted; to run it again: .venv/bin/ml-platform costs\n"


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_backfill_by_workers_is_interrupted_and_continues(tmp_path: Path) -> None:
    environment = project(tmp_path, 1, 12, ML_PLATFORM_LANDING_SETTLE_SECONDS="0")
    command = (
        *COMMAND, "backfill", "trips", "--with-sources", "--here", "--workers", "2",
        "--from", "2024-03-01", "--to", "2024-03-12", "--chunk", "4",
    )  # fmt: skip
    program = Program(command, environment, tmp_path / "log")
    try:
        program.wait_for("partitions pace_features")
        assert program.interrupt() == 130
        assert program.said.splitlines()[-1] == (
            "interrupted; call it again and it continues: ml-platform " + " ".join(command[2:])
        )
        assert "Traceback" not in program.said
        again = Program(command, environment, tmp_path / "log")
        assert again.process.wait(300) == 0, again.said
        assert "partitions were computed" in again.said
    finally:
        program.end()


@pytest.mark.slow
def test_a_server_is_stopped(tmp_path: Path) -> None:
    port = str(free_port())
    environment = project(tmp_path, 1, 1)
    program = Program((*COMMAND, "pages", "--port", port), environment, tmp_path / "log")
    try:
        program.wait_for(f"pages: http://127.0.0.1:{port}")
        assert program.interrupt() == 130
        assert program.said.endswith(
            f"\nstopped; to start it again: ml-platform pages --port {port}\n"
        )
        assert "Traceback" not in program.said
    finally:
        program.end()
