"""What an older release stored, brought to the shape that this release uses.

In order: DuckLake's own catalog, the lake's tables, the data folder, MLflow's database. Each step
is a transaction; what was interrupted is continued by the next upgrade, which looks at what is
there. Processes of the older release are stopped before, as they know nothing of it.
"""

import fcntl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ml_platform.errors import BackupRefused, PlatformError, UpgradeNeeded
from ml_platform.masking import masked
from ml_platform.registry.database import open_database
from ml_platform.registry.tracking import SQLITE
from ml_platform.settings import Settings
from ml_platform.spec.windows import Calendar
from ml_platform.storage import Commit, Lake
from ml_platform.storage.attaching import CATALOG_EXTENSIONS, attached, catalog_kind
from ml_platform.storage.extensions import load_extension
from ml_platform.storage.migrations import MigrationStep, Place, pending
from ml_platform.storage.schema_versions import (
    KNOWN,
    Kind,
    Stamp,
    read_folder_stamp,
    read_lake_stamp,
    stamp_folder,
    stamp_lake,
)
from ml_platform.upkeep.archive import Backup
from ml_platform.upkeep.backup import back_up, opened_archive
from ml_platform.upkeep.catalogs import as_file, copy_catalog
from ml_platform.upkeep.parts import dagster_home, is_on_a_server, mlflow_database
from ml_platform.upkeep.restore import opened_without_lake

Say = Callable[[str], None]


@dataclass(frozen=True)
class UpgradePart:
    """Something stored, and what separates it from the shape of this release."""

    of: Kind
    stamp: Stamp
    is_stamped: bool
    steps: tuple[MigrationStep, ...]

    @property
    def is_current(self) -> bool:
        """Whether it is in this shape and says so."""
        return self.is_stamped and self.stamp.version == KNOWN[self.of]

    def __str__(self) -> str:
        if self.is_current:
            return f"{self.of}: version {self.stamp.version}, which this release uses"
        if not self.steps:
            return f"{self.of}: in the shape of version {KNOWN[self.of]}; only its stamp is lacking"
        return f"{self.of}: version {self.stamp.version} to {KNOWN[self.of]}"


@dataclass(frozen=True)
class UpgradePlan:
    """What an upgrade would change, in the order in which it does."""

    ducklake: str = ""
    """What is the matter with DuckLake's own catalog; empty where nothing is."""
    parts: tuple[UpgradePart, ...] = ()
    """Unknown, and so empty, where an older DuckLake's catalog is in PostgreSQL."""
    mlflow: str = ""
    """What is the matter with MLflow's database, if it is a file."""
    commands: tuple[tuple[str, ...], ...] = ()
    """Commands of others that the upgrade runs at the end, as asked."""
    by_hand: tuple[str, ...] = ()
    """What others keep and migrate, and the command that does it."""

    @property
    def changes(self) -> bool:
        """Whether anything has to change but stamps."""
        steps = any(part.steps for part in self.parts)
        return bool(self.ducklake or self.mlflow or self.commands or steps)

    @property
    def is_current(self) -> bool:
        """Whether there is nothing at all to do."""
        return not self.changes and all(part.is_current for part in self.parts)


def plan_upgrade(settings: Settings, *, dagster: bool = False) -> UpgradePlan:
    """Find out what has to change; nothing is written. Raises NewerRelease or LakeError.

    dagster: whether Dagster is to migrate what DAGSTER_HOME keeps, too; nothing shows whether there
    is anything to migrate.
    """
    commands, by_hand = _dagster(dagster)
    if not settings.tracking_uri.startswith(SQLITE):
        uri = masked(settings.tracking_uri, settings)
        by_hand = (*by_hand, f"MLflow at {uri}: mlflow db upgrade, with its server's database")
    mlflow = _mlflow(settings)
    try:
        ducklake, parts = "", _parts_of(settings)
    except UpgradeNeeded as error:
        ducklake, parts = str(error).partition(": stop")[0], _parts_of_copy(settings)
    return UpgradePlan(ducklake, parts, mlflow, commands, by_hand)


def _parts_of(settings: Settings) -> tuple[UpgradePart, ...]:
    # To be read only, a catalog in SQLite would have to be as DuckLake sets it for writers.
    read_only = catalog_kind(settings) != "sqlite"
    with (
        closing(Lake(settings, read_only=read_only, is_upgrading=True)) as lake,
        lake.cursor() as cursor,
    ):
        return _parts(settings, cursor)


def _parts_of_copy(settings: Settings) -> tuple[UpgradePart, ...]:
    """What there is to do once DuckLake has migrated its catalog; nothing of one on a server."""
    if catalog_kind(settings) != "sqlite":
        return ()
    with TemporaryDirectory() as scratch:
        copy = Path(scratch, "catalog.sqlite")
        copy_catalog(settings, copy)
        copied = as_file(settings, copy)
        attached(copied, migrates=True).close()
        return _parts_of(copied)


def back_up_verified(settings: Settings, plan: UpgradePlan, target: str, say: Say) -> Backup:
    """Make a backup of what is there, and read all of it again. Raises BackupRefused."""
    is_migrating = bool(plan.ducklake)
    if is_migrating and catalog_kind(settings) != "sqlite":
        raise BackupRefused(
            "a catalog of an older DuckLake in PostgreSQL cannot be part of a backup: keep a copy "
            "of that database by pg_dump, then say --without-backup"
        )
    with closing(opened_without_lake(settings)) as database:
        load_extension(database, CATALOG_EXTENSIONS["sqlite"])
        made = back_up(settings, database, target, say, is_migrating=is_migrating)
        say("reading the backup again")
        if damaged := opened_archive(database, target).damaged(made):
            raise BackupRefused(f"{len(damaged):,} files of the backup are damaged; nothing was "
                                "upgraded")  # fmt: skip
        return made


def migrate_catalog(settings: Settings, say: Say) -> None:
    """Have DuckLake migrate its own catalog."""
    say("DuckLake's catalog, by DuckLake")
    attached(settings, migrates=True).close()


def upgrade(
    lake: Lake,
    plan: UpgradePlan,
    calendars: Mapping[str, Calendar],
    commit: Commit,
    say: Say,
) -> None:
    """Carry out a plan, within `alone_upgrading` and after `migrate_catalog`.

    lake: opened as one that is upgrading.
    calendars: those that use cases declare, by name; tables of others get none. commit: of each
    transaction, but for its message.
    Raises whatever a step does; what was done before stays, and the next upgrade continues.
    """
    settings = lake.settings
    with lake.cursor() as cursor:
        place = Place(settings, cursor, calendars)
        in_lake, in_folder = _parts(settings, cursor)
        _upgrade_lake(lake, place, in_lake, commit, say)
        if not in_folder.is_current:
            for step in in_folder.steps:
                say(step.what)
                step.run(place)
            stamp_folder(settings.root)
    if plan.mlflow:
        say("MLflow's database, by MLflow")
        _called((sys.executable, "-m", "mlflow", "db", "upgrade", settings.tracking_uri))
    for command in plan.commands:
        say(" ".join(command[1:]))
        _called(command)


@contextmanager
def alone_upgrading(settings: Settings) -> Iterator[None]:
    """While no other upgrade is under way; PlatformError where one is.

    On this machine a file's lock says so. Of several machines that share a catalog in PostgreSQL,
    the transactions of the lake see to it that each step is done once.
    """
    settings.root.mkdir(parents=True, exist_ok=True)
    with (settings.root / "upgrade.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PlatformError("another upgrade of this deployment is under way") from None
        yield


def _upgrade_lake(lake: Lake, place: Place, part: UpgradePart, commit: Commit, say: Say) -> None:
    if part.is_current:
        return
    apart = [step for step in part.steps if not step.is_in_lake]
    within = [step for step in part.steps if step.is_in_lake]
    for alone in apart:
        say(alone.what)
        alone.run(place)

    def work(
        step: MigrationStep | None, is_last: bool
    ) -> Callable[[duckdb.DuckDBPyConnection], None]:
        def run(transaction: duckdb.DuckDBPyConnection) -> None:
            if step is not None:
                step.run(replace(place, cursor=transaction))
            if is_last:
                stamp_lake(transaction)

        return run

    steps: list[MigrationStep | None] = [*within] or [None]
    for number, step in enumerate(steps, start=1):
        what = "stamp" if step is None else step.what
        say(what)
        made = replace(commit, message=f"platform/upgrade: {what}")
        lake.transact(place.cursor, made, work(step, number == len(steps)))


def _parts(
    settings: Settings, cursor: duckdb.DuckDBPyConnection
) -> tuple[UpgradePart, UpgradePart]:
    place = Place(settings, cursor)
    lake, folder = read_lake_stamp(cursor), read_folder_stamp(settings.root)
    return (_part("lake", place, lake), _part("data folder", place, folder))


def _part(kind: Kind, place: Place, stamp: Stamp | None) -> UpgradePart:
    found = stamp or Stamp()
    return UpgradePart(kind, found, stamp is not None, tuple(pending(kind, place, found)))


def _mlflow(settings: Settings) -> str:
    if not settings.tracking_uri.startswith(SQLITE):
        return ""
    database = mlflow_database(settings)
    if not database.exists():
        return ""
    try:
        open_database(database)
    except UpgradeNeeded as error:
        return str(error).partition(": stop")[0]
    return ""


def _dagster(run: bool) -> tuple[tuple[tuple[str, ...], ...], tuple[str, ...]]:
    """The command that migrates what Dagster keeps: to be run here, or named."""
    home = dagster_home()
    if home is None:
        return (), ()
    if not run or is_on_a_server(home) or find_spec("dagster") is None:
        return (), (f"Dagster, with DAGSTER_HOME={home}: dagster instance migrate",)
    return ((sys.executable, "-m", "dagster", "instance", "migrate"),), ()


def _called(command: tuple[str, ...]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise PlatformError(
            f"{' '.join(command[1:])} failed: {lines[-1] if lines else done.returncode}"
        )
