"""Commands that keep a lake usable."""

from typing import Annotated

import typer

PANEL = "Upkeep"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def upkeep(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done, and why not more.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON.")] = False,
) -> None:
    """Expire snapshots that nothing names, merge files, delete those that nothing needs.

    A snapshot that a model version, a row of the lake or the audit names is kept. Ends with 1 where
    something could not be done; the rest is.
    """
    import json
    from datetime import UTC, datetime

    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.cli.upkeep_tables import show_upkeep
    from ml_platform.upkeep import keep_up, plan_upkeep, upkeep_document

    with opened() as platform:
        now, use_cases = datetime.now(UTC), platform.loaded.use_cases.values()
        if dry_run:
            report = plan_upkeep(platform.lake, use_cases, now)
        else:
            platform.audit("upkeep", "", "lake")
            report = keep_up(platform.lake, use_cases, platform.platform_commit("upkeep"), now)
    if as_json:
        printing.show_line(json.dumps(upkeep_document(report), indent=2))
    else:
        show_upkeep(report, dry_run=dry_run)
    if report.problems:
        raise typer.Exit(1)
