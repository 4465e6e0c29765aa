"""The command that erases an entity."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.cli.arguments import UseCaseName

if TYPE_CHECKING:
    from ml_platform.cli.platform import Platform
    from ml_platform.erasure import Entity, Erased, Erasure
    from ml_platform.spec.use_case import UseCase

PANEL = "Upkeep"
commands = typer.Typer()


@commands.command(rich_help_panel=PANEL)
def erase(
    use_case: UseCaseName,
    entity: Annotated[
        list[str],
        typer.Option("--entity", help="Key of the entity, as customer_id=42; repeatable."),
    ],
    reason: Annotated[str, typer.Option("--reason", help="Why; it stays in the audit.")],
    by: Annotated[str | None, typer.Option("--by", help="Who decided it, for the audit.")] = None,
    backup: Annotated[
        list[str] | None,
        typer.Option("--backup", help="Folder or URL with backups to look into; repeatable."),
    ] = None,
    delete_backups: Annotated[
        bool, typer.Option("--delete-backups", help="Delete the backups there that hold it.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be erased.")
    ] = False,
) -> None:
    """Delete every row of an entity from every file and snapshot; say which models saw it."""
    from ml_platform.cli.platform import opened
    from ml_platform.erasure import Deployment, digest_of, named_entity
    from ml_platform.erasure import erase as erase_entity
    from ml_platform.errors import ErasureRefused
    from ml_platform.storage import Commit

    with opened() as platform:
        case = platform.case(use_case, anywhere=True)
        named = named_entity(case, entity)
        decided_by = by or platform.person
        if named.is_named_in(reason) or named.is_named_in(decided_by):
            raise ErasureRefused(
                "--reason and --by stay in the audit; write them without the entity's values"
            )
        digest = digest_of(platform.settings, named, make_key=not dry_run)
        details = {"entity": digest, "decided_by": decided_by}
        columns = ", ".join(named.columns)
        if not dry_run:
            platform.audit("erase", case.name, columns, reason=reason, **details)
        where = Deployment(
            platform.lake, platform.registry, platform.store, platform.loaded.use_cases,
            log_secret=_log_secret(),
        )  # fmt: skip
        commit = Commit(platform.run_id, "", f"{case.name}: an entity is erased")
        done = erase_entity(where, case, named, commit, _say, dry_run=dry_run)
        _show(done)
        if done.is_empty:
            _show_earlier(platform, digest)
        left = _backups(platform, case, named, backup or [], delete=delete_backups and not dry_run)
        if not dry_run:
            platform.audit("erased", case.name, columns, **details, **_figures(done))
        if (done.problems or left) and not dry_run:
            raise typer.Exit(1)


def _log_secret() -> bytes | None:
    from ml_platform.settings import ServingSettings

    secret = ServingSettings().log_secret
    return secret.get_secret_value().encode() if secret else None


def _show(done: "Erasure") -> None:
    from ml_platform.cli import printing

    for erased in done.use_cases:
        if erased.is_empty:
            printing.show_line(f"{erased.use_case}: nothing was found")
        rows = [(what, f"{count:,}", unit) for what, count, unit in _counted(erased)]
        if rows:
            printing.show_table((erased.use_case, "found", "of"), rows)
        if erased.trained:
            listed = ", ".join(map(str, erased.trained))
            printing.show_line(
                f"{erased.use_case}: model versions that may have been trained on it, and keep "
                f"what they learned until they are trained again: {listed}"
            )
        for each in erased.beyond:
            printing.show_line(f"{erased.use_case}: not touched, as others own it: {each}")
    for problem in done.problems:
        printing.show_line(f"not done: {problem}")


def _counted(erased: "Erased") -> list[tuple[str, int, str]]:
    return [
        *((f"table {table}", count, "rows") for table, count in erased.tables.items()),
        *(
            (f"landing of {source}, {len(files):,} files", sum(files.values()), "rows")
            for source, files in erased.landing.items()
        ),
        *((f"{s}, not landed yet", count, "rows") for s, count in erased.waiting.items()),
        *((f"online store, {view}", count, "keys") for view, count in erased.online.items()),
        *((f"sample of version {v}", count, "rows") for v, count in erased.samples.items()),
        *([("files of no snapshot", erased.leftovers, "files")] if erased.leftovers else []),
    ]


def _figures(done: "Erasure") -> dict[str, str]:
    """What the audit keeps of it: counts alone."""
    return {
        "rows": str(sum(n for each in done.use_cases for n in each.tables.values())),
        "data_files": str(sum(each.files for each in done.use_cases)),
        "landing_rows": str(
            sum(n for each in done.use_cases for f in each.landing.values() for n in f.values())
        ),
        "versions": ", ".join(
            f"{each.use_case} {version}" for each in done.use_cases for version in each.trained
        ),
        "problems": str(len(done.problems)),
    }


def _show_earlier(platform: "Platform", digest: str) -> None:
    """Say when the same entity was erased before."""
    from ml_platform.access import Audit
    from ml_platform.cli import printing

    rows = [
        row for row in Audit(platform.lake).rows(what="erased")
        if digest and row.action.details.get("entity") == digest
    ]  # fmt: skip
    if rows:
        printing.show_line(f"it was erased at {rows[-1].at.isoformat(timespec='seconds')}")


def _backups(
    platform: "Platform", case: "UseCase", named: "Entity", targets: list[str], *, delete: bool
) -> bool:
    """Say which backups hold it, and delete them where asked; whether one is left."""
    from ml_platform.cli import printing
    from ml_platform.erasure import backups_with, delete_backups

    left = False
    for target in targets:
        found = backups_with(platform.lake, [case], named, target, _log_secret())
        for name, files in found.items():
            done = "deleted" if delete else "it stays; --delete-backups deletes it"
            printing.show_line(f"backup {name} of {target} has it in {files:,} files: {done}")
        if delete:
            delete_backups(platform.lake, target, [*found])
        elif not found:
            printing.show_line(f"no backup of {target} has it")
        left = left or (bool(found) and not delete)
    return left


def _say(text: str) -> None:
    print(text, file=sys.stderr)
