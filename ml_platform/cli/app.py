"""The `ml-platform` command. What is heavy is imported when a subcommand runs."""

import sys

import typer

from ml_platform.cli import (
    access,
    backfilling,
    decisions,
    declaring,
    models,
    replaying,
    reviewing,
    rollouts,
    servers,
    tables,
    watching,
)
from ml_platform.errors import PlatformError

app = typer.Typer(
    name="ml-platform",
    help="Features, training, scoring and monitoring of use cases, without Dagster.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
GROUPS = (
    declaring, tables, backfilling, models, decisions, rollouts, reviewing, replaying, watching,
    servers, access,
)  # fmt: skip
for group in GROUPS:
    app.add_typer(group.commands)


def main() -> None:
    """Run the command line; what goes wrong is one line on standard error and exit code 1."""
    try:
        app()
    except PlatformError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        sys.exit(1)
