"""The command that follows rows and versions forwards, as `trace` follows a prediction back."""

from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName
from ml_platform.errors import PlatformError

if TYPE_CHECKING:
    from ml_platform.cli.platform import Platform
    from ml_platform.impact import Subject
    from ml_platform.spec.use_case import UseCase

PANEL = "Models"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def impact(
    use_case: UseCaseName,
    file: Annotated[
        str | None, typer.Option("--file", help="A landed file, named as below its landing folder.")
    ] = None,
    source: Annotated[str | None, typer.Option("--source", help="Source of the row.")] = None,
    key: Annotated[
        list[str] | None, typer.Option("--key", help="Key of the row, as order=17; repeatable.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Event time or partition of the row.")
    ] = None,
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", help="Only the version known at this time, and what it corrected."),
    ] = None,
    version: Annotated[int | None, typer.Option("--version", help="A model version.")] = None,
    rows: Annotated[
        bool, typer.Option("--rows", help="Recompute too, to count the rows that depend on it.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Every partition, as JSON.")] = False,
) -> None:
    """Show what a landed file, a row of a source, a correction or a model version touched.

    Name one of: --file; --source with --key; --version.
    """
    import json

    from ml_platform import impact as impacts
    from ml_platform.cli import impact_tables
    from ml_platform.cli.platform import opened

    given = [bool(file), bool(key), version is not None]
    if sum(given) != 1 or (key and not source) or (version is not None and (source or rows)):
        raise PlatformError("name one of --file F, --source S --key column=value, --version N")
    if (at or as_of) and not key:
        raise PlatformError("--at and --as-of choose a row; give them with --source and --key")
    with opened() as platform:
        case = platform.case(use_case, anywhere=True)
        if version is not None:
            of_version = impacts.version_impact(platform.lake, platform.registry, case, version)
            document = impacts.version_document(case, of_version)
        else:
            subject = _subject(platform, case, file, source, key or [], at, as_of)
            of_data = impacts.data_impact(
                platform.lake, platform.registry, case, subject, recompute=rows
            )
            document = impacts.data_document(case, of_data)
        if as_json:
            print(json.dumps(document, indent=2))
        elif version is not None:
            impact_tables.show_version_impact(case, of_version)
        else:
            impact_tables.show_data_impact(case, of_data)


def _subject(
    platform: "Platform",
    case: "UseCase",
    file: str | None,
    source: str | None,
    key: list[str],
    at: str | None,
    as_of: str | None,
) -> "Subject":
    from ml_platform.impact import landed_file, source_row
    from ml_platform.spec.ranges import named_moment, named_time

    if file is not None:
        return landed_file(platform.lake, case, file, source)
    assert source is not None
    named = dict(pair.partition("=")[::2] for pair in key)
    return source_row(
        platform.lake, case, source, named,
        at=None if at is None else named_time(case, at),
        as_of=None if as_of is None else named_moment(case, as_of),
    )  # fmt: skip
