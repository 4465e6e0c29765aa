"""The command that makes the Python environment of a use case."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import OneUseCase

PANEL = "Engines"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def environment(
    use_case: OneUseCase = None,
    every: Annotated[
        bool, typer.Option("--all", help="Make all that are missing or outdated.")
    ] = False,
    locked: Annotated[
        bool, typer.Option("--locked", help="Install the lock file as it is, or fail.")
    ] = False,
) -> None:
    """Make the environment of a use case whose folder holds requirements.txt; show them all.

    It is the platform's, changed as little as those requirements ask for. requirements.lock beside
    them says what is in it, with hashes. Dagster's code locations are written as well.
    """
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.errors import EnvironmentMissing, EnvironmentRefused
    from ml_platform.spec import environments

    if not environments.is_platforms():
        raise EnvironmentRefused(
            "environments are made with the platform's `ml-platform`, not with that of a use case"
        )
    with opened() as platform:
        settings, loaded = platform.settings, platform.loaded
    found = environments.environments_of(settings, loaded)
    if use_case and use_case not in found:
        case = loaded.require(use_case)
        raise EnvironmentMissing(
            f"{use_case} runs in the platform's environment; for one of its own write "
            f"{case.folder / 'requirements.txt'} with the packages that it needs"
        )
    due = [name for name, each in found.items() if each.state != "ready"] if every else []
    for name in [use_case] if use_case else due:
        if environments.make_environment(found[name], locked=locked):
            printing.show_line(f"{found[name].lock}: written; commit it")
    file = environments.write_workspace(settings, found.values())
    for each in found.values():
        printing.show_line(f"{each.use_case}: {each.state}, {each.folder}")
    if not found:
        printing.show_line("every use case runs in the platform's environment")
    if file:
        printing.show_line(f"{file}: code locations for Dagster; `make dev` takes them")
