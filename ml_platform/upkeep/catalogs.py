"""A lake's catalog as a file, whatever database it is in: copied from it, and made one again.

The file is a SQLite catalog that DuckLake itself can attach.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import duckdb

from ml_platform.errors import BackupRefused, LakeError
from ml_platform.masking import masked
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage.attaching import (
    CATALOG_EXTENSIONS,
    PASSWORD_OF_CATALOG,
    attached,
    catalog_kind,
    turns_file,
)
from ml_platform.storage.connection_strings import secret_sql, with_timeouts, without_password
from ml_platform.storage.extensions import connect_with
from ml_platform.storage.failing import lake_error
from ml_platform.storage.known_files import KnownFile, known_files
from ml_platform.storage.turns import turn

FILE, SERVER = "file", "server"


def copy_catalog(settings: Settings, file: Path) -> None:
    """Copy the catalog to a file that does not exist, as of one moment; writers continue.

    Raises LakeError or LakeUnavailable where it cannot be read.
    """
    if catalog_kind(settings) == "sqlite":
        copy_sqlite(Path(settings.catalog_uri.partition(":")[2]), file)
        return
    _make_empty(settings, file)
    with _both(settings, file, read_only=True) as cursor:
        _copy_tables(cursor, SERVER, FILE)


def restore_catalog(settings: Settings, file: Path) -> None:
    """Make the catalog of the settings hold what a file holds; `require_none` came before.

    It is there as a whole or not at all. Raises LakeError where it cannot be written.
    """
    if catalog_kind(settings) == "sqlite":
        catalog = Path(settings.catalog_uri.partition(":")[2])
        catalog.parent.mkdir(parents=True, exist_ok=True)
        unfinished = catalog.with_name(f"{catalog.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        copy_sqlite(file, unfinished)
        # As DuckLake would set it: what only reads the catalog must not have to.
        with closing(sqlite3.connect(unfinished)) as made:
            made.execute("PRAGMA journal_mode = WAL")
        with turn(turns_file(settings)):
            require_none(settings)
            # Of a database without tables, which whoever opens a lake that is not there makes.
            for ending in ("-wal", "-shm"):
                catalog.with_name(f"{catalog.name}{ending}").unlink(missing_ok=True)
            unfinished.replace(catalog)
        return
    # DuckLake makes its tables, in a lake that has no files yet.
    empty = settings.model_copy(update={"lake_files": f"{settings.root / 'lake' / 'none'}/"})
    attached(empty).close()
    with _both(settings, file, read_only=False) as cursor:
        _copy_tables(cursor, FILE, SERVER)


def require_none(settings: Settings) -> None:
    """Raise LakeError where the settings' catalog holds a lake."""
    where = masked(settings.catalog_uri, settings)
    if catalog_kind(settings) == "sqlite":
        if _holds_lake(Path(settings.catalog_uri.partition(":")[2])):
            raise LakeError(f"there is a lake already: {where}; name another catalog and folder")
        return
    with _server(settings, read_only=True) as cursor:
        if rows := _tables(cursor, SERVER):
            count = cursor.execute(f"SELECT count(*) FROM {rows['ducklake_snapshot']}").fetchone()
            if count is not None and count[0] > 1:
                raise LakeError(f"there is a lake already: {where}; name another database")


def as_file(settings: Settings, file: Path) -> Settings:
    """The same deployment with a copy of its catalog."""
    return settings.model_copy(update={"catalog": f"sqlite:{file}"})


def copy_sqlite(database: Path, file: Path) -> None:
    """Copy a SQLite database to another file, as of one moment; its writers continue."""
    with (
        closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(file)) as target,
    ):
        # One that is written all the time would make it begin again and again.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_master").fetchone()
        source.backup(target)
        # Else it would need files beside it to be opened.
        target.execute("PRAGMA journal_mode = DELETE")


def copied_files(
    cursor: duckdb.DuckDBPyConnection, file: Path, root: str
) -> tuple[int, list[KnownFile]]:
    """The newest snapshot of a catalog that was copied to a file, and the data files it knows.

    root: the folder or URL of the data files.
    """
    cursor.execute(f"ATTACH {literal(str(file))} AS {FILE} (TYPE sqlite, READ_ONLY)")
    try:
        row = cursor.execute(f"SELECT max(snapshot_id) FROM {FILE}.ducklake_snapshot").fetchone()
        assert row is not None
        return int(row[0]), list(known_files(cursor, root, catalog=FILE))
    finally:
        cursor.execute(f"DETACH {FILE}")


def name_below(root: str, file: KnownFile) -> str:
    """A data file's path below their folder; BackupRefused for one elsewhere."""
    if not file.path.startswith(f"{root}/"):
        raise BackupRefused(
            f"data file {file.path} of {file.schema}.{file.table} is not below {root}, where "
            "lake_files says that they are"
        )
    return file.path.removeprefix(f"{root}/")


def _holds_lake(catalog: Path) -> bool:
    """Whether a SQLite database has DuckLake's tables."""
    if not catalog.exists() or not catalog.stat().st_size:
        return False
    with closing(sqlite3.connect(f"file:{catalog}?mode=ro", uri=True)) as connection:
        found = "SELECT 1 FROM sqlite_master WHERE name = 'ducklake_snapshot'"
        return connection.execute(found).fetchone() is not None


def _make_empty(settings: Settings, file: Path) -> None:
    own = settings.model_copy(
        update={"catalog": f"sqlite:{file}", "lake_files": f"{file.parent / 'none'}/"}
    )
    attached(own).close()
    turns = turns_file(own)
    if turns is not None:
        turns.unlink(missing_ok=True)


@contextmanager
def _both(
    settings: Settings, file: Path, *, read_only: bool
) -> Iterator[duckdb.DuckDBPyConnection]:
    """As `_server`, with the file of a catalog as `file`."""
    with _server(settings, read_only=read_only) as cursor:
        cursor.execute(f"ATTACH {literal(str(file))} AS {FILE} (TYPE sqlite)")
        yield cursor


@contextmanager
def _server(settings: Settings, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB that has the database of the catalog, and not the lake, as `server`."""
    database = connect_with(CATALOG_EXTENSIONS["postgres"], CATALOG_EXTENSIONS["sqlite"])
    try:
        where, password = without_password(settings.catalog_uri.removeprefix("postgres:"))
        options = ["TYPE postgres", *(["READ_ONLY"] if read_only else [])]
        if password is not None:
            database.execute(secret_sql(PASSWORD_OF_CATALOG, password))
            options.append(f"SECRET {quote(PASSWORD_OF_CATALOG)}")
        database.execute(
            f"ATTACH {literal(with_timeouts(where))} AS {SERVER} ({', '.join(options)})"
        )
        yield database
    except duckdb.Error as error:
        raise lake_error(error, settings, "the lake's catalog cannot be copied: ") from None
    finally:
        database.close()


def _copy_tables(cursor: duckdb.DuckDBPyConnection, source: str, target: str) -> None:
    """Replace what the tables of a catalog hold by what those of another one hold."""
    cursor.execute("BEGIN")
    try:
        theirs, own = _tables(cursor, source), _tables(cursor, target)
        if lacking := sorted(theirs.keys() - own.keys()):
            raise LakeError(f"the catalog has a table that is not copied: {lacking[0]}")
        for name, table in sorted(theirs.items()):
            cursor.execute(f"DELETE FROM {own[name]}")
            cursor.execute(f"INSERT INTO {own[name]} BY NAME SELECT * FROM {table}")
        cursor.execute("COMMIT")
    except BaseException:
        with suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        raise


def _tables(cursor: duckdb.DuckDBPyConnection, database: str) -> dict[str, str]:
    """Full names of DuckLake's tables, by their own."""
    rows = cursor.execute(
        f"""SELECT schema_name, table_name FROM duckdb_tables()
        WHERE database_name = {literal(database)} AND starts_with(table_name, 'ducklake_')"""
    ).fetchall()
    return {name: f"{database}.{quote(schema)}.{quote(name)}" for schema, name in rows}
