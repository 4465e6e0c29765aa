"""The command that says what tables cost to compute."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import OneUseCase

PANEL = "Watching"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def costs(
    use_case: OneUseCase = None,
    days: Annotated[int, typer.Option(min=1, help="So many days up to now.")] = 30,
    daily: Annotated[bool, typer.Option("--daily", help="Each day by itself.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Each day, as JSON.")] = False,
) -> None:
    """Show what tables and models took: seconds, rows, bytes, engine.

    Seconds are by the clock; rows and bytes are those that were written. What a run found as it
    was is not counted, nor what failed.
    """
    import json
    from datetime import UTC, datetime, timedelta

    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.status import costs_document, read_costs, summed, training_costs

    with opened() as platform:
        since = datetime.now(UTC) - timedelta(days=days)
        found = [
            cost
            for case in platform.cases(use_case)
            for cost in (
                *read_costs(platform.lake, case, since),
                *training_costs(platform.registry, case, since),
            )
        ]
    if as_json:
        print(json.dumps(costs_document(found), indent=2))
        return
    if not found:
        printing.show_line(f"nothing was computed in the last {days} days")
        return
    heading = ("use case", "table", "day", "engine", "runs", "seconds", "rows", "bytes")
    rows = [
        (
            cost.use_case, cost.table, cost.day.isoformat() if cost.day else f"last {days} days",
            cost.engine, f"{cost.runs:,}", f"{cost.seconds:,.1f}", f"{cost.rows:,}",
            f"{cost.bytes:,}",
        )
        for cost in (found if daily else summed(found))
    ]  # fmt: skip
    printing.show_table(heading, rows)
    seconds = sum(cost.seconds for cost in found)
    printing.show_line(f"in all {seconds:,.1f} s for {sum(cost.rows for cost in found):,} rows")
