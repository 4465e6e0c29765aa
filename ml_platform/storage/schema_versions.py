"""The schema version of what the platform stores for itself: how it is stamped and checked.

Tables of the lake, files of the data folder, online stores and backups each hold a stamp: a version
and the release that wrote it. What has none was written by release 0.1.0 or before, and is version
1. A newer version than this release knows is never read. An older one is migrated by the steps of
`ml_platform.storage.migrations`.
"""

import json
import os
import secrets
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import duckdb

from ml_platform.errors import LakeError, NewerRelease, UpgradeNeeded
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import PLATFORM
from ml_platform.storage.known_files import METADATA

Kind = Literal["lake", "data folder", "online store", "backup"]
KNOWN: dict[Kind, int] = {"lake": 2, "data folder": 2, "online store": 1, "backup": 1}
"""The newest version that this release knows, which is also the one that it writes."""
TABLE = "schema_version"
"""Table of the platform's own without rows, whose comment is the stamp of the lake."""
FILE = "schema_version.json"
"""Holds the stamp of a data folder."""
BEGINNING = '{"schema_version": '


def release() -> str:
    """The release of the platform that runs."""
    return version("ml-platform")


@dataclass(frozen=True)
class Stamp:
    """What something stored says of its shape."""

    version: int = 1
    release: str = "0.1.0 or before"
    """The release that wrote it in this shape."""

    @classmethod
    def of(cls, kind: Kind) -> "Stamp":
        """The stamp that this release writes."""
        return cls(KNOWN[kind], release())

    @classmethod
    def read(cls, text: str) -> "Stamp":
        """The stamp of a text that `text` made."""
        said = json.loads(text)
        return cls(said["schema_version"], said["release"])

    @property
    def text(self) -> str:
        return json.dumps({"schema_version": self.version, "release": self.release})


def require_not_newer(kind: Kind, stamp: Stamp, where: str) -> None:
    """Raise NewerRelease where a stamp is newer than what this release knows."""
    if stamp.version > KNOWN[kind]:
        raise NewerRelease(
            f"the {kind} {where} has schema version {stamp.version}, written by release "
            f"{stamp.release}; release {release()}, which runs here, knows version {KNOWN[kind]}: "
            f"install release {stamp.release} or a newer one"
        )


def upgrade_needed(kind: Kind, stamp: Stamp, where: str) -> UpgradeNeeded:
    """That something older has to be migrated before it is used."""
    return UpgradeNeeded(
        f"the {kind} {where} has schema version {stamp.version}, written by release "
        f"{stamp.release}; release {release()} uses version {KNOWN[kind]}: stop the processes that "
        "use it, then run ml-platform upgrade --backup TARGET (--dry-run shows what it would do)"
    )


def read_lake_stamp(cursor: duckdb.DuckDBPyConnection) -> Stamp | None:
    """The stamp of the attached lake; None where it has none."""
    # One small table of the catalog; asking DuckDB for comments would load every table's.
    row = cursor.execute(
        f"""SELECT value FROM {METADATA}.ducklake_tag
        WHERE key = 'comment' AND end_snapshot IS NULL AND starts_with(value, {literal(BEGINNING)})
        """
    ).fetchone()
    return Stamp.read(row[0]) if row else None


def stamp_lake(transaction: duckdb.DuckDBPyConnection) -> None:
    """Stamp the lake, in the transaction that gives it the shape of this release."""
    table = f"lake.{PLATFORM}.{TABLE}"
    transaction.execute(f"CREATE SCHEMA IF NOT EXISTS lake.{PLATFORM}")
    transaction.execute(f"CREATE TABLE IF NOT EXISTS {table} (version INTEGER)")
    transaction.execute(f"COMMENT ON TABLE {table} IS {literal(Stamp.of('lake').text)}")


def read_folder_stamp(root: Path) -> Stamp | None:
    """The stamp of a data folder; None where it has none. Raises LakeError for one unreadable."""
    file = root / FILE
    try:
        return Stamp.read(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError) as error:
        raise LakeError(f"{file} cannot be read: {error}; restore it from a backup") from error


def stamp_folder(root: Path) -> None:
    """Stamp a data folder; the stamp is there as a whole or as before."""
    written = root / f"{FILE}.{secrets.token_hex(4)}.part"
    written.write_text(Stamp.of("data folder").text, encoding="utf-8")
    os.replace(written, root / FILE)
