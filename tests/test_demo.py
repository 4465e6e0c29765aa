"""The walk through the year: what it says where nobody looks, and how it is interrupted."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from demo.stages import stages
from tests.interrupted import ROOT, Program


def test_without_a_terminal_each_stage_is_a_line() -> None:
    said = io.StringIO()
    with stages(Console(file=said)) as begin:
        for title, parts in (("land", 2), ("ingest", 1)):
            done = begin(title, parts)
            for _ in range(parts):
                done()
    assert said.getvalue() == "00:00 land (2)\n00:00 ingest (1)\n"


def test_on_a_terminal_each_stage_is_a_bar() -> None:
    said = io.StringIO()
    with stages(Console(file=said, force_terminal=True, color_system=None)) as begin:
        begin("land", 2)()
    assert "1/2" in said.getvalue()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_an_interrupt_says_how_to_continue(tmp_path: Path) -> None:
    home = tmp_path / "data" / "dagster"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    environment = {"ML_PLATFORM_DATA": str(home.parent), "DAGSTER_HOME": str(home)}
    program = Program(("-m", "demo"), environment, tmp_path / "log")
    try:
        program.wait_for("ingest (3)")
        assert program.interrupt() == 130
        *_, landed, ingested, last = program.said.splitlines()
        assert landed.endswith("land files, day by day (366)")
        assert ingested.endswith("ingest (3)")
        assert last == "interrupted; to continue: make demo"
        assert "Traceback" not in program.said
    finally:
        program.end()
