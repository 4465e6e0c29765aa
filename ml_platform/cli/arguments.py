"""Arguments and options that subcommands share."""

from typing import Annotated, Literal

import typer

UseCaseName = Annotated[str, typer.Argument(metavar="USE_CASE", help="Name of a use case.")]
Partition = Annotated[str | None, typer.Option("--partition", help="One partition, by its key.")]
Range = Annotated[
    str | None, typer.Option("--range", help="Partitions from first...last, both included.")
]
ByEngine = Annotated[
    Literal["in_process", "spark"] | None,
    typer.Option("--engine", help="Where to compute, instead of where the use case declares."),
]
Entity = Annotated[list[str], typer.Argument(help="Key of the example, such as order=17.")]
PredictedAt = Annotated[
    str | None,
    typer.Option("--at", help="Event time or partition of the prediction; by default the latest."),
]
OneUseCase = Annotated[
    str | None, typer.Argument(metavar="[USE_CASE]", help="Name of a use case; by default all.")
]
