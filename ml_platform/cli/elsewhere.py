"""Commands about a use case with an environment of its own: they continue in that environment."""

import os
import subprocess
import sys
from typing import NoReturn

from ml_platform.errors import EnvironmentMissing
from ml_platform.settings import Settings
from ml_platform.spec.environments import Environment, environment_of, runs_here
from ml_platform.spec.loading import require_use_case
from ml_platform.spec.use_case import UseCase

MODULE = ("-m", "ml_platform.cli")


def continue_where_it_runs(settings: Settings, use_case: UseCase) -> None:
    """Begin this command again with the interpreter that a use case runs in, if it is another.

    Says so on standard error. Raises EnvironmentMissing where its environment was not made, or
    where this process runs in that of another use case.
    """
    if runs_here(use_case.name, use_case.folder):
        return
    environment = environment_of(settings, use_case.name, use_case.folder)
    if environment is None:
        raise EnvironmentMissing(
            f"{use_case.name} runs in the platform's environment, and {sys.prefix} is that of "
            "another use case; run the command with the platform's `ml-platform`"
        )
    environment.require_made()
    if environment.state == "outdated":
        print(f"warning: {outdated(environment)}", file=sys.stderr)
    print(f"{use_case.name}: runs in its own environment, {environment.folder}", file=sys.stderr)
    _become(environment, sys.argv[1:])


def continue_to_serve(settings: Settings, name: str) -> None:
    """As `continue_where_it_runs`, for the service of a use case.

    Raises EnvironmentMissing where the use case shares the platform's environment: there is one
    service for all of those.
    """
    use_case = require_use_case(settings.use_cases, name, settings.databases, settings.derived)
    if environment_of(settings, name, use_case.folder) is None:
        raise EnvironmentMissing(
            f"{name} has no environment of its own; `ml-platform serve` serves it with all others"
        )
    continue_where_it_runs(settings, use_case)


def outdated(environment: Environment) -> str:
    """What is said of an environment that is not what its files ask for any more."""
    return (
        f"{environment.use_case}: {environment.requirements}, its lock file or the platform's has "
        f"changed since its environment was made; run `{environment.command}`"
    )


def run_in(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Another command, in an environment; what it printed."""
    command = [str(environment.require_made()), *MODULE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _become(environment: Environment, arguments: list[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    python = str(environment.python)
    os.execv(python, [python, *MODULE, *arguments])
