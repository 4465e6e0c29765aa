"""The command line, run within the process of a test."""

import sys
from collections.abc import Callable

import pytest

from ml_platform.cli import main

Run = Callable[..., tuple[int, str]]
"""Runs a command; its exit code, and all that it said."""


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Commands with the environment of a test."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["ml-platform", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out + said.err

    return run
