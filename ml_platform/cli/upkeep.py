"""Commands that keep a lake usable."""

from datetime import datetime
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
    from datetime import UTC

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


@commands.command(rich_help_panel=PANEL)
def rekey(
    before: Annotated[
        datetime | None,
        typer.Option(
            "--before",
            help="Only files that were written before this moment, in UTC: what an earlier call "
            "said, to continue it.",
            formats=["%Y-%m-%dT%H:%M:%S.%f", "%Y-%m-%dT%H:%M:%S"],
        ),
    ] = None,
) -> None:
    """Give the data files of an encrypted lake new keys; every snapshot reads the same rows."""
    from datetime import UTC

    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.upkeep import rekeying

    moment = before.replace(tzinfo=UTC) if before else datetime.now(UTC)
    with opened() as platform:
        rekeying.require_keys(platform.lake)
        printing.show_line(
            f"to continue after an interruption: --before {moment:%Y-%m-%dT%H:%M:%S.%f}"
        )
        platform.audit("rekey", "", "lake")
        done = rekeying.rekey(
            platform.lake, platform.platform_commit("rekey"), moment, printing.show_line
        )
    printing.show_line(
        f"{done.files:,} data files, {done.bytes / 2**20:,.1f} MiB, have new keys; backups of "
        "before keep the old ones until they are deleted"
    )
