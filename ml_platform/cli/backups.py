"""Commands that make backups, bring things back from them, and repair what was lost."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from ml_platform.cli.platform import Platform
    from ml_platform.storage.lost_files import LostFile
    from ml_platform.upkeep.repair import Missed, RepairPlan

PANEL = "Upkeep"
commands = typer.Typer()
Target = Annotated[str, typer.Argument(help="Folder or URL (s3://, az://) that holds backups.")]
Source = Annotated[
    str | None, typer.Option("--backup", help="Folder or URL that holds backups.", metavar="FROM")
]
SHOWN = 20


@commands.command(rich_help_panel=PANEL)
def backup(
    target: Target,
    landing: Annotated[bool, typer.Option(help="Whether landing files are part of it.")] = True,
    keep: Annotated[
        int | None, typer.Option(min=1, help="Delete all but so many of the newest backups.")
    ] = None,
) -> None:
    """Copy lake, models, runs, online store and audit to a folder or URL, while they are used."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.upkeep.backup import make_backup, opened_archive

    with files_named(), opened(is_upgrading=True) as platform:
        # Before it is made: so it stands in the audit that is part of it.
        platform.audit("backup", "", target)
        made = make_backup(platform.lake, target, _say, landing=landing)
        printing.show_line(
            f"backup {made.name}: {len(made.entries):,} files, {made.bytes / 2**20:,.1f} MiB, up "
            f"to snapshot {made.snapshot}"
        )
        for left in made.left_out:
            printing.show_line(f"not in it: {left}")
        if keep is not None:
            with platform.lake.cursor() as cursor:
                dropped = opened_archive(cursor, target).drop(keep)
            printing.show_line(f"deleted: {', '.join(dropped) or 'no older backup'}")


@commands.command(rich_help_panel=PANEL)
def backups(
    target: Target,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read all that the newest holds; compare digests.")
    ] = False,
) -> None:
    """Show what backups there are."""
    from contextlib import closing

    from ml_platform.cli import printing
    from ml_platform.cli.platform import read_settings
    from ml_platform.errors import BackupRefused
    from ml_platform.upkeep.backup import opened_archive
    from ml_platform.upkeep.restore import opened_without_lake

    with files_named(), closing(opened_without_lake(read_settings())) as database:
        archive = opened_archive(database, target)
        found = [archive.backup(name) for name in archive.names]
        rows = [
            (each.name, f"{each.snapshot}", f"{len(each.entries):,}",
             f"{each.bytes / 2**20:,.1f}", each.platform)
            for each in found
        ]  # fmt: skip
        printing.show_table(("backup", "up to snapshot", "files", "MiB", "platform"), rows)
        if verify:
            if damaged := archive.damaged(archive.backup()):
                listed = ", ".join(f"{each.part}/{each.name}" for each in damaged[:SHOWN])
                raise BackupRefused(
                    f"{len(damaged):,} files of the newest backup are lost or damaged: {listed}"
                )
            printing.show_line(f"each file of {found[-1].name} is as it was when it was copied")


@commands.command(rich_help_panel=PANEL)
def restore(
    target: Target,
    name: Annotated[str | None, typer.Option("--name", help="By default the newest.")] = None,
) -> None:
    """Bring back all of a backup, to where the settings say; there may be no lake yet."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened, read_settings
    from ml_platform.upkeep.restore import restore as bring_back

    with files_named():
        done = bring_back(read_settings(), target, name, _say)
    # It may be of an older release; then the next command asks for the upgrade.
    with opened(is_upgrading=True) as platform:
        platform.audit("restore", "", f"{target} {done.backup.name}")
    printing.show_line(
        f"restored {done.backup.name}, up to snapshot {done.backup.snapshot}: {done.written:,} of "
        f"{len(done.backup.entries):,} files were written, the others were there"
    )
    for left in done.left_out:
        printing.show_line(f"not in it: {left}")


@commands.command("move-lake", rich_help_panel=PANEL)
def move_lake(
    catalog: Annotated[
        str | None, typer.Option(help="New catalog, as ML_PLATFORM_CATALOG names it.")
    ] = None,
    files: Annotated[str | None, typer.Option(help="New folder or URL of the data files.")] = None,
) -> None:
    """Copy the lake to PostgreSQL, an object store or another folder, with all of its history."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.errors import PlatformError
    from ml_platform.masking import masked
    from ml_platform.upkeep.moving import move_lake as move
    from ml_platform.upkeep.moving import moved

    if catalog is None and files is None:
        raise PlatformError("say where the lake is to be: --catalog, --files, or both")
    with files_named(), opened() as platform:
        target = moved(platform.settings, catalog, files)
        where = f"{masked(target.catalog_uri, target)}, {target.lake_files_uri}"
        # In the old lake and, since it is copied, in the new one.
        platform.audit("move lake", "", where)
        snapshot = move(platform.lake, catalog, files, _say)
    printing.show_line(f"moved up to snapshot {snapshot}: {where}")
    printing.show_line("from now on: ML_PLATFORM_CATALOG and ML_PLATFORM_LAKE_FILES with these")


@commands.command(rich_help_panel=PANEL)
def verify(
    reading: Annotated[
        bool, typer.Option("--reading", help="Read each data file, not only its size.")
    ] = False,
    source: Source = None,
) -> None:
    """Say which data files and model artifacts are missing or damaged; exit code 1 if any is."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened

    with files_named(), opened() as platform:
        lost = _lost(platform, reading=reading, source=source)
        models = _lost_models(platform)
        for problem in [*map(str, lost[:SHOWN]), *models]:
            printing.show_line(problem)
        if len(lost) > SHOWN:
            printing.show_line(f"and {len(lost) - SHOWN:,} data files more")
        if lost or models:
            printing.show_line("ml-platform repair brings back what can be brought back")
            raise typer.Exit(1)
        printing.show_line("every data file and every model artifact is there")


@commands.command(rich_help_panel=PANEL)
def repair(
    source: Source = None,
    reading: Annotated[
        bool, typer.Option("--reading", help="Read each data file, not only its size.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Continue without rows that nothing can bring back."),
    ] = False,
) -> None:
    """Bring lost data files back from a backup; compute again what was in the others."""
    from ml_platform.cli import printing
    from ml_platform.cli.platform import opened
    from ml_platform.upkeep.repair import RowCounts, compute_again, forget, plan_repair

    with files_named(), opened() as platform:
        lost = _lost(platform, reading=reading, source=source)
        if source is not None:
            lost = _fetch(platform, source, lost, dry_run=dry_run)
        cases = platform.loaded.use_cases
        plan = plan_repair(cases, lost)
        _show_plan(plan, accept_loss=accept_loss)
        missed: list[Missed] = []
        files = [*plan.forgotten, *(plan.irreplaceable if accept_loss else ())]
        if files and not dry_run:
            held = "; ".join(each.file.held for each in files[:SHOWN])
            platform.audit("repair", "", f"{len(files)} data files", held=held)
            rows = RowCounts(platform.lake, plan.forgotten)
            forget(platform.lake, cases, plan, files, platform.run_id)
            rows.begin()
            compute_again(platform.lake, platform.registry, cases, plan, platform.run_id, _say)
            missed = rows.missed()
            printing.show_line(f"{len(files):,} data files are no longer read")
        for each in missed:
            printing.show_line(str(each))
        if missed or plan.old or (plan.irreplaceable and not accept_loss):
            raise typer.Exit(1)
        if not lost:
            printing.show_line("nothing is lost")


def _say(text: str) -> None:
    print(text, file=sys.stderr)


@contextmanager
def files_named() -> Iterator[None]:
    """Say in one line what a file system refuses."""
    from ml_platform.errors import BackupRefused

    try:
        yield
    except OSError as error:
        raise BackupRefused(f"{error.filename}: {error.strerror}") from error


def _lost(platform: "Platform", *, reading: bool, source: str | None) -> "list[LostFile]":
    from ml_platform.storage.lost_files import find_lost
    from ml_platform.storage.stored_files import StoredFiles
    from ml_platform.upkeep.backup import opened_archive
    from ml_platform.upkeep.repair import find_changed

    root = platform.settings.lake_files_uri.rstrip("/")
    with platform.lake.cursor() as cursor:
        lost = find_lost(cursor, root, reading=reading)
        if source is None or not reading:
            return lost
        archive, known = opened_archive(cursor, source), {each.file.path for each in lost}
        changed = find_changed(cursor, archive, StoredFiles(cursor, root))
        return [*lost, *(each for each in changed if each.file.path not in known)]


def _fetch(
    platform: "Platform", source: str, lost: "list[LostFile]", *, dry_run: bool
) -> "list[LostFile]":
    """Bring files back from a backup; those that it does not hold."""
    from ml_platform.cli import printing
    from ml_platform.storage.stored_files import StoredFiles
    from ml_platform.upkeep.backup import opened_archive
    from ml_platform.upkeep.repair import fetch_artifacts, fetch_lost

    with platform.lake.cursor() as cursor:
        archive = opened_archive(cursor, source)
        lake = StoredFiles(cursor, platform.settings.lake_files_uri)
        left = fetch_lost(archive, lost, lake, dry_run=dry_run)
        artifacts = fetch_artifacts(archive, platform.settings, dry_run=dry_run)
    if not dry_run and (len(left) < len(lost) or artifacts):
        platform.audit("repair", "", f"{len(lost) - len(left)} data files, {artifacts} artifacts")
    would = "would come" if dry_run else "came"
    printing.show_line(
        f"{would} back from {source}: {len(lost) - len(left):,} of {len(lost):,} data files, "
        f"{artifacts:,} artifacts of models"
    )
    return left


def _show_plan(plan: "RepairPlan", *, accept_loss: bool) -> None:
    from ml_platform.cli import printing

    for name, tables in plan.windows.items():
        for table, windows in tables.items():
            printing.show_line(f"{name}/{table}: {len(windows):,} windows, computed again")
    for each in plan.irreplaceable[:SHOWN]:
        what = "is given up" if accept_loss else "only a backup has it, or --accept-loss"
        printing.show_line(f"{each}; nothing can compute it: {what}")
    for each in plan.old[:SHOWN]:
        printing.show_line(f"{each}; only a backup has it")


def _lost_models(platform: "Platform") -> list[str]:
    from ml_platform.errors import PlatformError

    problems = []
    for use_case in platform.loaded.use_cases.values():
        for version in platform.registry.versions(use_case):
            try:
                platform.registry.require_artifacts(use_case, version)
            except PlatformError as error:
                problems.append(str(error))
    return problems
