"""The command that erases an entity."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.erasure import Erased

PANEL = "Upkeep"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def erase(
    use_case: UseCaseName,
    entity: Annotated[
        list[str],
        typer.Option("--entity", help="Key of the entity, as customer_id=42; repeatable."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why, for the audit.")],
    by: Annotated[str | None, typer.Option("--by", help="Who asks, for the audit.")] = None,
    backups: Annotated[
        list[str] | None,
        typer.Option("--backup", help="Folder or URL with backups to look through; repeatable."),
    ] = None,
    delete_backups: Annotated[
        bool, typer.Option("--delete-backups", help="Delete the backups there that hold it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased.")
    ] = False,
) -> None:
    """Delete every row of an entity, in every snapshot and file; say which models saw it."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.erasure import Deployment, named_entity
    from ml_platform.erasure import erase as erase_entity
    from ml_platform.erasure.digests import digest_of
    from ml_platform.errors import ErasureRefused
    from ml_platform.storage import Commit

    with opened() as platform:
        case = platform.case(use_case, anywhere=True)
        named = named_entity(case, entity)
        who = by or platform.person
        if named.is_named_in(reason) or named.is_named_in(who):
            raise ErasureRefused(
                "--reason and --by stay in the audit; write them without the entity's values"
            )
        if not dry_run:
            digest = digest_of(platform.settings, named)
            platform.audit("erase", case.name, ", ".join(named.columns), entity=digest,
                           by=who, reason=reason)  # fmt: skip
        deployment = Deployment(
            platform.lake, platform.registry, platform.store, platform.loaded.use_cases
        )
        commit = Commit(platform.run_id, "", f"{case.name}: an entity is erased")
        done = erase_entity(deployment, case, named, commit, _say, dry_run=dry_run)
        for each in done.use_cases:
            _show(each, dry_run=dry_run)
        for problem in done.problems:
            printing.show_line(problem)
        if done.problems:
            raise typer.Exit(1)


def _show(erased: "Erased", *, dry_run: bool) -> None:
    from ml_platform.cli import printing

    if erased.is_empty:
        printing.show_line(f"{erased.use_case}: nothing was found")
    for table, count in erased.tables.items():
        printing.show_line(f"{erased.use_case}.{table}: {count:,} rows")
    for name, count in erased.landing.items():
        printing.show_line(f"landing {name}: {count:,} rows")
    for source, count in erased.waiting.items():
        printing.show_line(f"{source} that had not landed: {count:,} rows")
    for view, count in erased.online.items():
        printing.show_line(f"online store, {view}: {count:,} entities")
    for version, count in erased.samples.items():
        printing.show_line(f"reference sample of model version {version}: {count:,} rows")
    if erased.trained:
        listed = ", ".join(map(str, erased.trained))
        printing.show_line(f"model versions that may have been trained on it: {listed}")
    for each in erased.beyond:
        printing.show_line(f"not the platform's to change: {each}")


def _say(text: str) -> None:
    print(text, file=sys.stderr)
