"""What changed in the shape of what the platform stores, and how older shapes are migrated.

Whoever changes the shape of a table, file or key that the platform reads again adds a `Migration`
here and raises the version in `KNOWN`. A migration is SQL of its time: it uses no definitions of
tables of today, which change later. Its steps are found by looking at what is stored, so that one
that was interrupted continues with what is left.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from ml_platform.masking import masked
from ml_platform.storage.migrations import data_folder_2, lake_2
from ml_platform.storage.migrations.place import MigrationStep, Place
from ml_platform.storage.schema_versions import (
    KNOWN,
    Kind,
    Stamp,
    read_folder_stamp,
    read_lake_stamp,
    require_not_newer,
    stamp_folder,
    upgrade_needed,
)

__all__ = ["MIGRATIONS", "Migration", "MigrationStep", "Place", "pending", "require_current"]


@dataclass(frozen=True)
class Migration:
    """How what is stored in one version comes to the next one."""

    of: Kind
    version: int
    """The version that it leads to, from the one before."""
    what: str
    """What it does, in one sentence."""
    steps: Callable[[Place], Iterable[MigrationStep]]
    """What of it is left to be done; looks at the catalog, and at no rows."""


MIGRATIONS = (
    Migration(
        "lake", 2,
        "Every table with windows has _snapshot and notes its calendar; reports and promotions "
        "have all of their columns.", lake_2.steps,
    ),
    Migration(
        "data folder", 2, "Callbacks say when they were notified in a column of that name.",
        data_folder_2.steps,
    ),
)  # fmt: skip


def pending(kind: Kind, place: Place, stamp: Stamp) -> list[MigrationStep]:
    """What separates something stored from the shape of this release, in order."""
    return [
        step
        for migration in MIGRATIONS
        if migration.of == kind and migration.version > stamp.version
        for step in migration.steps(place)
    ]


def require_current(place: Place, *, read_only: bool, is_upgrading: bool) -> bool:
    """Whether lake and data folder have the shape of this release; says what lacks only a stamp.

    Returns whether the lake's next transaction should stamp it: it is in this shape and does not
    say so. is_upgrading: an older shape is taken, too, and stays without a stamp.
    Raises NewerRelease, and UpgradeNeeded where there is anything to be done.
    """
    stamp = read_lake_stamp(place.cursor)
    where = _lake_of(place)
    require_not_newer("lake", stamp or Stamp(), where)
    root = place.settings.root
    own = read_folder_stamp(root)
    require_not_newer("data folder", own or Stamp(), str(root))
    if is_upgrading:
        return False
    if _is_older("data folder", place, own, str(root)) and not read_only and root.is_dir():
        # One that this process may not write keeps no stamp.
        with suppress(OSError):
            stamp_folder(root)
    return _is_older("lake", place, stamp, where)


def _is_older(kind: Kind, place: Place, stamp: Stamp | None, where: str) -> bool:
    """Whether a stamp is lacking or older and nothing but it has to change; else UpgradeNeeded."""
    found = stamp or Stamp()
    if found.version == KNOWN[kind]:
        return False
    if pending(kind, place, found):
        raise upgrade_needed(kind, found, where)
    return True


def _lake_of(place: Place) -> str:
    return masked(place.settings.catalog_uri, place.settings)
