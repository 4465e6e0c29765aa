"""The command that brings a stretch of partitions up to date."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

PANEL = "Tables"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def backfill(
    use_case: UseCaseName,
    tables: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TABLE]...", help="These and what is computed from them."),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", help="First partition.")] = None,
    last: Annotated[str | None, typer.Option("--to", help="Last partition.")] = None,
    only: Annotated[bool, typer.Option("--only", help="The named tables alone.")] = False,
    with_sources: Annotated[bool, typer.Option(help="Ingest, too.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Compute fresh partitions, too.")] = False,
    chunk: Annotated[int | None, typer.Option(min=1, help="Partitions of a run.")] = None,
    run_per_table: Annotated[bool, typer.Option(help="A run for each table.")] = False,
    through_daemon: Annotated[
        bool, typer.Option(help="By a backfill of Dagster's daemon.")
    ] = False,
    here: Annotated[bool, typer.Option(help="In this process, without Dagster.")] = False,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be done.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the backfills under way.")] = False,
) -> None:
    """Compute what is missing, failed or stale; what is under way already is joined.

    Stale is what was made by older code, from data that has changed since, or by a model version
    that does not serve there any more. Call it again after an interruption: it goes on.
    """
    from ml_platform.backfill.asked import Asked
    from ml_platform.cli import backfills as command
    from ml_platform.cli.platform import opened

    with opened() as platform:
        if end:
            command.end(platform, use_case)
            return
        asked = Asked(
            tables=tuple(tables or ()), first=first, last=last, only=only,
            with_sources=with_sources, every=every, chunk=chunk, run_per_table=run_per_table,
        )  # fmt: skip
        how: command.How = "here" if here else "daemon" if through_daemon else "runs"
        command.backfill(platform, use_case, asked, how, dry_run)
