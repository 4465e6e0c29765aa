"""What has landed for a source: files of a landing folder, or those of a table of a lake."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import duckdb

from ml_platform.errors import LandingError
from ml_platform.settings import Settings
from ml_platform.sources.column_types import require_columns
from ml_platform.sources.delta_tables import DeltaFiles
from ml_platform.sources.iceberg_tables import IcebergFiles
from ml_platform.sources.landing import LandingIndex
from ml_platform.sources.listing import (
    ListedFile,
    contract_of,
    landing_folder,
    list_landing,
    state_of,
)
from ml_platform.sources.shared_tables import SharedTable, named_errors
from ml_platform.spec.use_case import UseCase, digest
from ml_platform.spec.values import no_database
from ml_platform.storage import Lake
from ml_platform.storage.iceberg_catalogs import open_catalog, open_table_at
from ml_platform.storage.stores import Store, store_of
from ml_platform.storage.tables import canonical_types


@dataclass(frozen=True)
class Landed:
    """What there is at one moment."""

    files: Sequence[ListedFile]
    state: str
    """Digest of it, and of the contract that it has to keep."""
    table: SharedTable | None = None
    """The table that the files are of."""

    def since_us(self, now: datetime) -> int:
        """When files that are not there any more went, in microseconds since 1970."""
        return self.table.committed_us if self.table else int(now.timestamp() * 1_000_000)


def look_at_landing(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str
) -> Landed:
    """The files that a source has now.

    Raises LandingError where they cannot be listed, or where a table is not as it is declared,
    LakeUnavailable where its server does not answer.
    """
    declared = use_case.sources[source]
    if not declared.lake_table:
        listed = list_landing(lake, use_case, source)
        return Landed(listed, state_of(use_case, source, listed))
    named = f"{use_case.name}/{source}: {declared.lake_table}"
    with named_errors(lake.settings, named, "cannot be opened"):
        opened = _open(lake, cursor, use_case, source, named)
    kinds = canonical_types(cursor, declared.columns.values())
    types = dict(zip(declared.columns, kinds, strict=True))
    require_columns(opened.named, types, opened.columns)
    return Landed(opened.files, digest(contract_of(use_case, source), opened.state), opened)


def require_files(landed: Landed, index: LandingIndex, use_case: UseCase, source: str) -> None:
    """LandingError where every file of a folder is gone that removes rows along with its files.

    A folder that is not mounted looks like that, too.
    """
    declared = use_case.sources[source]
    if declared.files and declared.removes_gone and index.versions and not landed.files:
        raise LandingError(
            f"{use_case.name}/{source}: no file matches '{declared.files}' any more; is the folder "
            "there? If all rows are to be removed, land a file without any"
        )


def _open(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, source: str, named: str
) -> DeltaFiles | IcebergFiles:
    declared = use_case.sources[source]
    if "/" in declared.lake_table:
        where = declared.lake_table
        path = where if where.startswith("/") else landing_folder(lake, use_case) + where
        if declared.iceberg:
            return IcebergFiles(lake.settings, cursor, named, open_table_at(path))
        return DeltaFiles(lake.settings, cursor, named, Store(path.rstrip("/")), named)
    database, *rest = declared.lake_table.split(".")
    where = _where(lake.settings, database, declared.file_format)
    try:
        if declared.iceberg:
            catalog = open_catalog(database, where)
            return IcebergFiles(lake.settings, cursor, named, catalog.load_table(tuple(rest)))
        store = store_of(where)
    except ValueError as error:
        raise LandingError(f"setting databases: '{database}': {error}") from None
    return DeltaFiles(
        lake.settings, cursor, named, Store(store.at(*rest), store.options), declared.lake_table
    )


def _where(settings: Settings, database: str, kind: str) -> str:
    secret = settings.databases.get(database)
    if secret is None:
        raise LandingError(no_database(database, settings.databases))
    begins, _, where = secret.get_secret_value().partition(":")
    if begins != kind:
        raise LandingError(f"setting databases: '{database}' should begin with '{kind}:'")
    return where
