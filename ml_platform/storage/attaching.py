"""Attach the lake, and other databases that it reads, to DuckDB; load what that needs."""

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
from packaging.version import Version

from ml_platform.errors import LakeError, NewerRelease, SchemaVersionRefused, UpgradeNeeded
from ml_platform.masking import masked
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.spec.values import no_database
from ml_platform.storage.connection_strings import (
    mysql_secret_sql,
    secret_sql,
    with_timeouts,
    without_password,
)
from ml_platform.storage.extensions import connect_with, load_extension
from ml_platform.storage.failing import lake_error
from ml_platform.storage.known_files import OF_DUCKLAKE
from ml_platform.storage.stored_files import StoredFiles
from ml_platform.storage.turns import lost_race, retried, turn

OTHER_DUCKLAKE = re.compile(
    r"catalog version is (\d[^ ,]*), but the extension requires version (\d[^ ,]*)\. "
)
NO_LAKE = "creating a new DuckLake is explicitly disabled"
"""What DuckLake says of a catalog that holds none."""
PASSWORD_OF_CATALOG = "password of the lake"
CATALOG_EXTENSIONS = {"sqlite": "sqlite_scanner", "postgres": "postgres_scanner"}
DATABASE_EXTENSIONS = {**CATALOG_EXTENSIONS, "mysql": "mysql_scanner"}


def turns_file(settings: Settings) -> Path | None:
    """File whose lock orders the writers of an embedded catalog; a server orders its own."""
    kind, _, path = settings.catalog_uri.partition(":")
    return Path(f"{path}.lock") if kind == "sqlite" else None


def attached(
    settings: Settings, *, read_only: bool = False, migrates: bool = False
) -> duckdb.DuckDBPyConnection:
    """A DuckDB in this process with the lake as its database `lake`, which is made if need be.

    read_only: DuckDB refuses every statement that would write to it, and it has to exist.
    migrates: DuckLake migrates a catalog that an older one made.
    Raises LakeError where the catalog cannot be opened; NewerRelease and UpgradeNeeded where it was
    made by another DuckLake.
    """
    kind, turns = catalog_kind(settings), None if read_only else turns_file(settings)
    if turns is not None:
        turns.parent.mkdir(parents=True, exist_ok=True)
    elif kind == "sqlite" and not (file := Path(settings.catalog_uri.partition(":")[2])).exists():
        raise LakeError(f"there is no lake: {file} does not exist; ML_PLATFORM_DATA says where")
    return retried(
        lambda: _attach(settings, kind, turns, read_only, migrates),
        settings.commit_retries,
        "opening the lake",
    )


def attach_database(cursor: duckdb.DuckDBPyConnection, settings: Settings, name: str) -> str:
    """Make the tables of a database of the setting `databases` readable as `name.…`; its kind.

    Raises LakeError where there is no such database, or it cannot be opened.
    """
    secret = settings.databases.get(name)
    if secret is None:
        raise LakeError(no_database(name, settings.databases))
    kind, colon, where = secret.get_secret_value().partition(":")
    if not colon or kind not in DATABASE_EXTENSIONS:
        begin = " or ".join(f"'{k}:'" for k in (*DATABASE_EXTENSIONS, "adbc"))
        raise LakeError(f"setting databases: '{name}' should begin with {begin}")
    if kind == "postgres" and where.startswith("//"):
        where = f"postgresql:{where}"
    options = [f"TYPE {kind}", "READ_ONLY"]
    what = f"database '{name}' cannot be opened: "
    try:
        load_extension(cursor, DATABASE_EXTENSIONS[kind])
        if kind == "postgres":
            where, password = without_password(where)
            if password is not None:
                cursor.execute(secret_sql(f"password of {name}", password))
                options.append(f"SECRET {quote(f'password of {name}')}")
        elif kind == "mysql":
            # All of it, so that the connection string is empty.
            cursor.execute(mysql_secret_sql(f"connection of {name}", where))
            options.append(f"SECRET {quote(f'connection of {name}')}")
            where = ""
        cursor.execute(
            f"ATTACH IF NOT EXISTS {literal(where)} AS {quote(name)} ({', '.join(options)})"
        )
    except duckdb.Error as error:
        raise lake_error(error, settings, what) from None
    except ValueError as error:
        raise LakeError(f"{what}{error}") from None
    return kind


def catalog_kind(settings: Settings) -> str:
    """Which database the catalog is in: sqlite or postgres. Raises LakeError for another one."""
    kind, colon, _ = settings.catalog_uri.partition(":")
    if not colon or kind not in CATALOG_EXTENSIONS:
        known = " or ".join(f"'{k}:'" for k in CATALOG_EXTENSIONS)
        # What follows the kind may hold a password.
        raise LakeError(f"setting catalog begins with '{kind}'; it should begin with {known}")
    return kind


def allow_object_stores(database: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Give a DuckDB the secrets of object stores, and the authorities that these are trusted by."""
    if settings.object_store_ca:
        # Else it would hold for this connection, and not for those that write files.
        ca = str(settings.object_store_ca.absolute())
        database.execute(f"SET GLOBAL ca_cert_file = {literal(ca)}")
    if settings.secrets_sql:
        database.execute(settings.secrets_sql.get_secret_value())


def _attach(
    settings: Settings, kind: str, turns: Path | None, read_only: bool, migrates: bool
) -> duckdb.DuckDBPyConnection:
    # DuckDB's built-in cryptography only decrypts; httpfs brings OpenSSL.
    encrypting = ("httpfs",) if settings.encrypted else ()
    database = connect_with("ducklake", CATALOG_EXTENSIONS[kind], *settings.extensions, *encrypting)
    try:
        # Else it would be a folder in whatever directory the process was started in.
        database.execute(f"SET temp_directory = {literal(str(settings.root / 'spill'))}")
        if settings.duckdb_threads:
            database.execute(f"SET threads = {settings.duckdb_threads:d}")
        if settings.duckdb_memory:
            database.execute(f"SET memory_limit = {literal(settings.duckdb_memory)}")
        allow_object_stores(database, settings)
        # DuckLake would repeat a commit that lost on top of the one that won, without reading
        # again: two writers that both found a window empty would both fill it.
        database.execute("SET ducklake_max_retry_count = 0")
        if kind == "sqlite":
            # A scan by several threads opens connections of its own and ends at the last row that
            # there was when it was planned. A reader whom a merge of files comes in between would
            # find neither those files nor their successor: a table without rows.
            database.execute("SET GLOBAL sqlite_disable_multithreaded_scans = true")
        with turn(turns):
            _attach_or_make(database, settings, kind, read_only, migrates)
    except duckdb.Error as error:
        database.close()
        if lost_race(error):
            raise
        if (made_by_another := _of_another_ducklake(error, settings)) is not None:
            raise made_by_another from None
        raise lake_error(error, settings, f"the lake's {kind} catalog cannot be opened: ") from None
    except BaseException:
        database.close()
        raise
    return database


def _of_another_ducklake(error: duckdb.Error, settings: Settings) -> SchemaVersionRefused | None:
    found = OTHER_DUCKLAKE.search(str(error))
    if found is None:
        return None
    stored, needed = found.groups()
    said = (
        f"DuckLake's catalog {masked(settings.catalog_uri, settings)} has DuckLake's version "
        f"{stored}, and the DuckLake of this release uses {needed}: "
    )
    if Version(stored) > Version(needed):
        return NewerRelease(f"{said}a newer release opened it; install that one")
    return UpgradeNeeded(
        f"{said}stop the processes that use it, then run ml-platform upgrade --backup TARGET "
        "(--dry-run shows what it would do)"
    )


def _attach_or_make(
    database: duckdb.DuckDBPyConnection,
    settings: Settings,
    kind: str,
    read_only: bool,
    migrates: bool,
) -> None:
    """Attach the lake; where there is none yet make it, unless there are data files of one."""
    *before, attach = _attach_sql(settings, kind, read_only, migrates)
    for statement in before:
        database.execute(statement)
    try:
        database.execute(attach.removesuffix(")") + ", CREATE_IF_NOT_EXISTS false)")
    except duckdb.InvalidInputException as error:
        if NO_LAKE not in str(error) or read_only:
            raise
        _require_no_files(database, settings)
        database.execute(attach)


def _require_no_files(database: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Raise LakeError where data files lie where a new lake's are to be: its catalog is gone."""
    sizes = StoredFiles(database, settings.lake_files_uri).sizes()
    found = [name for name in sizes if OF_DUCKLAKE.search(name)]
    if found:
        catalog = masked(settings.catalog_uri, settings)
        raise LakeError(
            f"the catalog {catalog} is empty or missing, and {len(found):,} data files of a lake "
            f"are below {settings.lake_files_uri}, which nothing can read without it; no new lake "
            "is made over them. Bring the catalog back (ml-platform restore brings all back from a "
            "backup), correct ML_PLATFORM_CATALOG, or name another folder with "
            "ML_PLATFORM_LAKE_FILES"
        )


def _attach_sql(settings: Settings, kind: str, read_only: bool, migrates: bool) -> Iterator[str]:
    uri = settings.catalog_uri
    # Rows kept in the catalog instead of a file would be missed by engines that read the
    # files, and would stay readable where the files are encrypted.
    options = [
        f"DATA_PATH {literal(settings.lake_files_uri)}",
        "DATA_INLINING_ROW_LIMIT 0",
        # The setting says where the files are now: a data folder can be moved or copied.
        "OVERRIDE_DATA_PATH true",
    ]
    if kind == "postgres":
        where, password = without_password(uri.removeprefix("postgres:"))
        uri = f"postgres:{where}"
        if password is not None:
            yield secret_sql(PASSWORD_OF_CATALOG, password)
            options.append(f"META_SECRET {literal(PASSWORD_OF_CATALOG)}")
    if kind == "postgres":
        uri = f"postgres:{with_timeouts(uri.removeprefix('postgres:'))}"
    if kind == "sqlite":
        options += ["META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 1000"]
    elif "://" in uri:
        uri += f"{'&' if '?' in uri else '?'}options=-c%20lc_messages%3DC"
    else:
        uri += " options='-c lc_messages=C'"
    if settings.encrypted:
        options.append("ENCRYPTED")
    if read_only:
        options.append("READ_ONLY")
    if migrates:
        options.append("AUTOMATIC_MIGRATION true")
    yield f"ATTACH {literal('ducklake:' + uri)} AS lake ({', '.join(options)})"
