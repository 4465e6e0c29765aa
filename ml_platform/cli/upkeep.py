"""Commands that keep a lake usable."""

from typing import Annotated

import typer

PANEL = "Upkeep"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def sweep(
    hours: Annotated[
        float, typer.Option(min=0, help="Files that are younger stay: a writer may be at work.")
    ] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
) -> None:
    """Delete data files that killed writers left and that nothing names."""
    from datetime import UTC, datetime, timedelta

    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.storage.orphans import find_orphans, sweep_orphans

    with opened() as platform:
        older_than = datetime.now(UTC) - timedelta(hours=hours)
        if dry_run:
            with platform.lake.cursor() as cursor:
                found = find_orphans(platform.lake, cursor, older_than)
        else:
            platform.audit("sweep", "", "data files", older_than=older_than.isoformat())
            found = sweep_orphans(platform.lake, older_than)
        for path in found.files:
            printing.show_line(path)
        verb = "would be deleted" if dry_run else "deleted"
        printing.show_line(f"{verb}: {len(found.files)} files that nothing names")
