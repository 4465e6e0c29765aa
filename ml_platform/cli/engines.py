"""Commands for engines that compute elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

PANEL = "Engines"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def pack(
    archive: Annotated[
        Path, typer.Argument(metavar="ARCHIVE", help="Where to write it: environment.tar.gz.")
    ],
) -> None:
    """Pack the Python environment that Spark's workers need to predict.

    The setting ML_PLATFORM_SPARK_ARCHIVE then names it. A new model version needs no new archive
    unless it was trained with other packages.
    """
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.engines.spark.packing import pack_environment
    from ml_platform.errors import PlatformError
    from ml_platform.spec.environments import runs_here

    if not archive.name.endswith(".tar.gz"):
        raise PlatformError(f"{archive} should end in .tar.gz, by which Spark knows what it is")
    with opened() as platform:
        found = platform.loaded.use_cases.values()
        here = [case for case in found if runs_here(case.name, case.folder)]
        packages = pack_environment(archive, here)
    size = archive.stat().st_size / 1_000_000
    printing.show_line(f"{archive}: {len(packages)} packages, {size:,.0f} MB")
    printing.show_line(f"export ML_PLATFORM_SPARK_ARCHIVE={archive.resolve()}")
