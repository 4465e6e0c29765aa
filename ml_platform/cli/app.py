"""The `ml-platform` command. What is heavy is imported when a subcommand runs."""

import sys
import traceback

import typer

from ml_platform.cli import (
    access,
    backfilling,
    backups,
    costs,
    decisions,
    declare_commands,
    engines,
    environments,
    erasures,
    impacts,
    models,
    replaying,
    reviewing,
    rollouts,
    servers,
    tables,
    upgrading,
    upkeep,
    watching,
)
from ml_platform.cli.interrupts import Interruptible
from ml_platform.errors import PlatformError, Unavailable
from ml_platform.extras import extra

app = typer.Typer(
    name="ml-platform",
    cls=Interruptible,
    help="Features, training, scoring and monitoring of use cases, without Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
GROUPS = (
    declare_commands, tables, backfilling, models, impacts, decisions, rollouts, reviewing,
    replaying, watching, costs, servers, access, backups, upgrading, upkeep, erasures, engines,
    environments,
)  # fmt: skip
for group in GROUPS:
    app.add_typer(group.commands)


def main() -> None:
    """Run the command line; what goes wrong is one line on standard error and exit code 1.

    A command that has written nothing yet begins again once a server that it needs answers.
    """
    try:
        with extra():
            _run()
    except Exception as error:
        print(_line_of(error), file=sys.stderr)
        sys.exit(1)


def _run() -> None:
    try:
        app()
    except Unavailable as error:
        if error.is_final:
            raise
        from ml_platform.cli.platform import read_settings
        from ml_platform.storage.patience import Patience

        Patience(read_settings().server_wait_seconds)(app)


def _line_of(error: Exception) -> str:
    """What is said of an error, without any password of the settings."""
    from ml_platform.failures import failure_of, is_of_a_store
    from ml_platform.masking import masked
    from ml_platform.settings import Settings

    try:
        settings = Settings()
    except (ValueError, PlatformError):
        # What is wrong with them is the error.
        settings = Settings.model_construct()
    if isinstance(error, PlatformError):
        lines = masked(str(error), settings).splitlines()
        return "\n".join(f"error: {line}" for line in lines)
    failure = failure_of(error, settings)
    if failure.kind != "other" or is_of_a_store(error):
        return f"error: {failure}"
    # A mistake in code: where it is matters.
    return masked("".join(traceback.format_exception(error)), settings)
