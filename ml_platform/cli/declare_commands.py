"""Commands that write and check declarations of use cases."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ml_platform.errors import PlatformError

PANEL = "Declare"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the project.")] = Path(),
) -> None:
    """Write what a project needs beside its use cases; files that are there stay as they are."""
    from ml_platform.cli import printing
    from ml_platform.spec.scaffold import write_project

    printing.show_project(folder, write_project(folder))


@commands.command(rich_help_panel=PANEL)
def new(
    name: Annotated[str, typer.Argument(help="Name of the use case.")],
    file: Annotated[
        Path, typer.Option("--from", help="CSV, Parquet or JSON lines: a file, a folder, a 'glob'.")
    ],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    event_time: Annotated[str | None, typer.Option(help="Column that says when.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Column that distinguishes rows.")] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="Column that is known at the event, whatever it says."),
    ] = None,
    task: Literal["binary", "multiclass", "regression"] | None = None,
    cadence: Literal["hourly", "daily", "weekly", "monthly"] | None = None,
    timezone: Annotated[str, typer.Option(help="Zone of times without an offset.")] = "UTC",
) -> None:
    """Write a use case that works, guessed from files; options say what is not to be guessed."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import read_settings
    from ml_platform.spec.scaffold import Overrides, scaffold

    said = Overrides(
        event_time, label, tuple(key or ()), task, cadence, timezone, tuple(inputs or ())
    )
    printing.show_scaffold(name, scaffold(read_settings(), name, file, said))


@commands.command(rich_help_panel=PANEL)
def check(
    name: Annotated[str | None, typer.Argument(metavar="[USE_CASE]")] = None,
    plant: Annotated[
        bool,
        typer.Option("--plant", help="Plant leaks and corrections in a copy; say what is found."),
    ] = False,
) -> None:
    """Load use cases and build their estimators; say everything that is wrong with them."""
    from ml_platform.cli import checking
    from ml_platform.cli.platform import read_settings

    if plant and name is None:
        raise PlatformError("--plant is about one use case; name it")
    settings = read_settings()
    checking.check(settings, name)
    if plant and name is not None:
        from ml_platform.cli import planting

        planting.check_planted(settings, name)
