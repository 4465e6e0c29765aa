"""The command that migrates what an older release stored."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.upkeep.upgrade import UpgradePlan

PANEL = "Upkeep"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def upgrade(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, in which order.")
    ] = False,
    backup: Annotated[
        str | None,
        typer.Option(
            help="Folder or URL (s3://, az://) that a verified backup is made in first.",
            metavar="TARGET",
        ),
    ] = None,
    without_backup: Annotated[
        bool, typer.Option("--without-backup", help="Upgrade without a backup.")
    ] = False,
    dagster: Annotated[
        bool, typer.Option("--dagster", help="Have Dagster migrate what DAGSTER_HOME keeps, too.")
    ] = False,
) -> None:
    """Migrate what an older release stored to the shape that this one uses.

    Stop the service, Dagster and whatever else uses the deployment first. What was interrupted is
    continued by the same command.
    """
    from ml_platform.cli import printing
    from ml_platform.cli.backups import files_named
    from ml_platform.cli.checking import has_lake
    from ml_platform.cli.platform import opened, read_settings
    from ml_platform.errors import PlatformError
    from ml_platform.upkeep import upgrade as upgrading

    settings = read_settings()
    if not has_lake(settings):
        printing.show_line("there is no lake yet; nothing to upgrade")
        return
    with files_named(), upgrading.alone_upgrading(settings):
        plan = upgrading.plan_upgrade(settings, dagster=dagster)
        _show(plan)
        if dry_run or plan.is_current:
            return
        if plan.changes and backup is None and not without_backup:
            raise PlatformError(
                "a backup comes first: --backup TARGET makes one and reads it again; without one, "
                "say --without-backup"
            )
        if backup is not None:
            made = upgrading.back_up_verified(settings, plan, backup, _say)
            printing.show_line(f"backup {made.name} of {backup} is whole")
        if plan.ducklake:
            upgrading.migrate_catalog(settings, _say)
        with opened(is_upgrading=True) as platform:
            loaded = platform.loaded
            if plan.changes and loaded.broken:
                raise PlatformError(
                    f"{', '.join(sorted(loaded.broken))} cannot be loaded, and its calendar may "
                    "have to be noted: `ml-platform check` says what is wrong"
                )
            platform.audit("upgrade", "", "; ".join(map(str, plan.parts)) or "DuckLake's catalog")
            calendars = {name: case.calendar for name, case in loaded.use_cases.items()}
            commit = platform.platform_commit("upgrade")
            upgrading.upgrade(platform.lake, plan, calendars, commit, _say)
    printing.show_line("upgraded" if plan.changes else "stamped")


def _show(plan: "UpgradePlan") -> None:
    from ml_platform.cli import printing

    if plan.ducklake:
        printing.show_line(plan.ducklake)
        printing.show_line("  DuckLake migrates it")
    for part in plan.parts:
        printing.show_line(str(part))
        for step in part.steps:
            printing.show_line(f"  {step.what}")
    if plan.mlflow:
        printing.show_line(plan.mlflow)
        printing.show_line("  mlflow db upgrade")
    for command in plan.commands:
        printing.show_line(f"runs at the end: {' '.join(command[2:])}")
    for said in plan.by_hand:
        printing.show_line(f"by hand: {said}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
