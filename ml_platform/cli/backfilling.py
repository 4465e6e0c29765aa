"""Commands that bring what is stored up to date: partitions, and the windows they are of."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import ByEngine, UseCaseName

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
    workers: Annotated[
        int, typer.Option(min=1, help="Processes that compute side by side; with --here.")
    ] = 1,
    share: Annotated[
        str | None,
        typer.Option(help="2/3: the second third alone; others compute the rest. With --here."),
    ] = None,
    engine: ByEngine = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be done.")] = False,
    end: Annotated[bool, typer.Option("--end", help="End the backfills under way.")] = False,
) -> None:
    """Compute what is missing, failed or stale; what is under way already is joined.

    Stale is what was made by older code, from data that has changed since, or by a model version
    that does not serve there any more. Call it again after an interruption: it continues.
    """
    from ml_platform.backfill.request import BackfillRequest
    from ml_platform.backfill.workers import Share
    from ml_platform.cli import backfills as command
    from ml_platform.cli.platform import opened
    from ml_platform.errors import PlatformError

    with opened() as platform:
        if end:
            command.end(platform, use_case)
            return
        request = BackfillRequest(
            tables=tuple(tables or ()), first=first, last=last, only=only,
            with_sources=with_sources, every=every, chunk=chunk, run_per_table=run_per_table,
            engine=engine, workers=workers, share=Share.parse(share) if share else None,
        )  # fmt: skip
        if not here and (engine or share or workers > 1):
            raise PlatformError(
                "--engine, --workers and --share are of --here; Dagster runs as many runs side by "
                "side as its run queue allows, and the launchpad asks for an engine"
            )
        how: command.How = "here" if here else "daemon" if through_daemon else "runs"
        command.backfill(platform, use_case, request, how, dry_run)


@commands.command(rich_help_panel=PANEL)
def recalendar(use_case: UseCaseName) -> None:
    """Move what is stored to the windows that `partitions` declares now, in one transaction.

    Rows of sources and of quarantine are moved, none is lost. What was computed is dropped, to be
    computed again; snapshots from before keep it until they expire.
    """
    from ml_platform import backfill as library
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.storage import StoredCalendar

    with opened() as platform:
        case = platform.loaded.require(use_case)
        action = platform.action(
            "recalendar", case.name, "tables", calendar=str(StoredCalendar.of(case.calendar))
        )
        commit = platform.commit(case, "recalendar", action)
        printing.show_recalendared(case, library.recalendar(platform.lake, case, commit))
