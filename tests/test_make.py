"""What `make install` says: one line, and all that an installer says where it fails."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
INSTALLER = """#!/bin/sh
for number in 1 2 3; do echo "$(basename $0) says $number"; done
case "$(basename $0) $*" in {fails}) exit 1;; esac
"""


def install(folder: Path, fails: str = "nothing") -> subprocess.CompletedProcess[str]:
    """Run it with installers that say much; fails: a pattern of the shell for those that do."""
    shutil.copy(ROOT / "Makefile", folder)
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "requirements", folder / "requirements")
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "uv"):
        (programs / name).write_text(INSTALLER.replace("{fails}", fails))
        (programs / name).chmod(0o755)
    # Not as a part of the `make` that may have started the tests.
    environment = {k: v for k, v in os.environ.items() if k not in {"MAKEFLAGS", "MAKELEVEL"}}
    return subprocess.run(
        ["make", "install"], cwd=folder, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def test_installing_is_one_line(tmp_path: Path) -> None:
    done = install(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "Installing what requirements/dev.txt lists into .venv, which takes a few minutes.\n"
    )
    assert (tmp_path / ".venv" / ".installed").exists()


def test_what_an_installer_says_is_shown_where_it_fails_and_pip_takes_over(tmp_path: Path) -> None:
    done = install(tmp_path, fails="uv*")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "uv says 1", "uv says 2", "uv says 3",
        "uv could not install the dependencies; trying pip, which takes longer.",
    ]  # fmt: skip


@pytest.mark.parametrize("fails", ["*dev.txt", "*--editable*"])
def test_nothing_is_installed_where_pip_fails_too(tmp_path: Path, fails: str) -> None:
    done = install(tmp_path, fails)
    assert done.returncode != 0
    assert "python says 3" in done.stderr
    assert not (tmp_path / ".venv" / ".installed").exists()
