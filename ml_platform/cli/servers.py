"""Commands that serve until they are interrupted."""

from typing import Annotated

import typer

PANEL = "Servers"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def pages(port: Annotated[int, typer.Option(min=0, max=65535)] = 3001) -> None:
    """Serve the pages about use cases, reports, versions and predictions until interrupted."""
    from ml_platform.cli.platform import read_serving_settings, read_settings
    from ml_platform.web import serve_pages

    typer.echo(f"pages: http://127.0.0.1:{port}")
    serve_pages(read_settings(), read_serving_settings(), port)


@commands.command(rich_help_panel=PANEL)
def keep_loaded() -> None:
    """Reload Dagster's code location whenever its server has died, until interrupted."""
    from ml_platform.cli import greeting
    from ml_platform.cli.platform import read_settings
    from ml_platform.orchestrator import Orchestrator
    from ml_platform.orchestrator import keep_loaded as keep

    with Orchestrator(read_settings().dagster_url) as dagster:
        keep(dagster, typer.echo, lambda: typer.echo(greeting.of_dagster(dagster.url)))


@commands.command(rich_help_panel=PANEL)
def serve(
    use_case: Annotated[
        str | None,
        typer.Argument(
            metavar="[USE_CASE]", help="One with an environment of its own; by default the others."
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="HTTP port.")] = None,
    grpc_port: Annotated[int | None, typer.Option(min=0, max=65535, help="gRPC port.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that answer.")] = None,
) -> None:
    """Answer prediction requests until interrupted; settings say the rest.

    A service loads models of the use cases of one environment.
    """
    from ml_platform.cli import greeting
    from ml_platform.cli.elsewhere import continue_to_serve
    from ml_platform.cli.platform import read_serving_settings, read_settings

    settings = read_settings()
    if use_case is not None:
        continue_to_serve(settings, use_case)
    serving = read_serving_settings(port=port, grpc_port=grpc_port, workers=workers)
    address = greeting.address_of(serving)
    typer.echo(f"starting on {address}; {address}/docs shows the API as a page")
    # Imports the libraries of all models, which takes seconds.
    from ml_platform.serving.worker import serve as start

    greeting.greet_when_up(serving, settings, typer.echo)
    start(serving)
