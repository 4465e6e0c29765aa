"""The units of systemd: they are understood, start what there is, and may do little."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from ml_platform.cli.app import app
from ml_platform.settings import Settings

ROOT = Path(__file__).parents[1]
FILES = ROOT / "deploy" / "systemd"
UNITS = sorted(FILES.glob("*.service"))
ANALYZE = shutil.which("systemd-analyze")
PROGRAMS = "/opt/ml-platform/.venv/bin"
MOST_EXPOSED = 20
"""Of 100, as `systemd-analyze security` weighs what a unit may do; an unhardened one has 96."""

needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    assert ANALYZE is not None
    return subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units with the programs of this environment, and what they share in each: outside /etc
    systemd-analyze reads no drop-ins."""
    shared = (FILES / "ml-platform-.service.d" / "common.conf").read_text()
    for unit in UNITS:
        text = unit.read_text().replace(PROGRAMS, str(Path(sys.executable).parent))
        (tmp_path / unit.name).write_text(f"{text}\n{shared}")
    shutil.copy(FILES / "ml-platform.target", tmp_path)
    return tmp_path


@needs_systemd
def test_systemd_understands_the_units(installed: Path) -> None:
    done = analyze("verify", "--man=no", *(installed / unit.name for unit in UNITS))
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_systemd_names_a_planted_fault(installed: Path) -> None:
    unit = installed / "ml-platform-daemon.service"
    unit.write_text(unit.read_text().replace("ProtectSystem=strict", "ProtectSystm=strict"))
    assert "ProtectSystm" in analyze("verify", "--man=no", unit).stderr


@needs_systemd
@pytest.mark.parametrize("name", [unit.name for unit in UNITS])
def test_services_may_do_little(installed: Path, name: str) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSED}", installed / name)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_target_wants_every_service() -> None:
    (wanted,) = re.findall(r"^Wants=(.+)$", (FILES / "ml-platform.target").read_text(), re.M)
    assert set(wanted.split()) == {unit.name for unit in UNITS}


def test_what_is_started_is_there() -> None:
    commands = get_command(app).commands  # type: ignore[attr-defined]
    for unit in UNITS:
        (line,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
        program, *arguments = line.split()
        assert (Path(sys.executable).parent / Path(program).name).exists()
        if arguments[:2] == ["-m", "ml_platform.cli"]:
            assert arguments[2] in commands


def test_settings_are_those_that_there_are() -> None:
    lines = dict(re.findall(r"^ML_PLATFORM_(\w+)=\"?(.*?)\"?$",
                            (FILES / "settings.env").read_text(), re.MULTILINE))  # fmt: skip
    Settings.model_validate({name.lower(): value for name, value in lines.items()})
