"""Commands that say how things are, and who is notified."""

from typing import Annotated

import typer

from ml_platform.cli.arguments import OneUseCase

PANEL = "Watching"
commands = typer.Typer()
alerts = typer.Typer(invoke_without_command=True)
commands.add_typer(alerts, name="alerts", rich_help_panel=PANEL)

OnlyUseCase = Annotated[
    str | None, typer.Option("--use-case", help="Name of a use case; by default all.")
]


@commands.command(rich_help_panel=PANEL)
def status(
    use_case: OneUseCase = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with keys that stay.")] = False,
) -> None:
    """Show how use cases are: tables, champion, drift, performance, what waits for a person."""
    from datetime import UTC, datetime

    from ml_platform.cli import health_page
    from ml_platform.cli.platform import opened
    from ml_platform.errors import PlatformError, Unavailable
    from ml_platform.status import ask_dagster, read_health

    with opened() as platform:
        loaded = platform.loaded
        chosen = [loaded.require(use_case)] if use_case else list(loaded.use_cases.values())
        now = datetime.now(UTC)
        dagster = ask_dagster(platform.settings, chosen)
        found, broken = [], dict[str, PlatformError]({} if use_case else loaded.broken)
        for case in chosen:
            try:
                failed = dagster.failed.get(case.name, ())
                found.append(read_health(platform.lake, case, now, failed))
            except Unavailable:
                # Of none of them anything is known.
                raise
            except PlatformError as error:
                # The others are shown all the same.
                broken[case.name] = error
        show = health_page.print_json if as_json else health_page.show_health
        show(found, dagster, broken, list(loaded.use_cases))
        if broken.keys() & loaded.use_cases:
            raise typer.Exit(1)


@alerts.callback()
def list_alerts(context: typer.Context, use_case: OnlyUseCase = None) -> None:
    """Show what is the matter now, and what has not arrived; `test` tries the channels."""
    if context.invoked_subcommand:
        return
    from datetime import UTC, datetime

    from ml_platform.alerts import Channels
    from ml_platform.cli import health_page
    from ml_platform.cli.platform import opened
    from ml_platform.status import ask_dagster, open_alerts, undelivered

    with opened() as platform:
        loaded = platform.loaded
        chosen = [loaded.require(use_case)] if use_case else list(loaded.use_cases.values())
        now = datetime.now(UTC)
        channels = Channels.of(platform.settings)
        dagster = ask_dagster(platform.settings, chosen)
        for case in chosen:
            found = open_alerts(platform.lake, case, now, dagster.failed.get(case.name, ()))
            health_page.show_alerts(case, found, undelivered(platform.lake, case))
        health_page.show_unreachable(dagster)
        health_page.show_channels(channels)


@alerts.command("test")
def try_out(use_case: OnlyUseCase = None) -> None:
    """Send a test message to each channel and say which took it."""
    from ml_platform.alerts import Channels, try_channels
    from ml_platform.cli import health_page
    from ml_platform.cli.platform import opened
    from ml_platform.errors import AlertsMisconfigured

    with opened() as platform:
        if use_case:
            platform.loaded.require(use_case)
        channels = Channels.of(platform.settings)
        tried = try_channels(channels, use_case, platform.person)
        health_page.show_tried(channels, tried, list(platform.loaded.use_cases))
        failed = [channel for channel, said in tried if said is not None]
        if failed or channels.problems or not tried:
            raise AlertsMisconfigured(_verdict(len(failed), len(tried), channels.problems))


def _verdict(failed: int, tried: int, problems: tuple[str, ...]) -> str:
    if problems:
        return "\n".join(problems)
    if not tried:
        return (
            "there is no channel to try; set ML_PLATFORM_ALERTS to Apprise addresses, such as "
            "mailto://user:password@example.com, or to the path of an Apprise configuration file"
        )
    return f"{failed} of {tried} channels did not take the message"
