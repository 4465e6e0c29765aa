"""DuckDB's extensions, loaded from the wheels that carry them."""

from contextlib import closing
from functools import lru_cache

import duckdb
from duckdb_extensions import import_extension

from ml_platform.errors import LakeError

NOTHING_BY_ITSELF = {"autoinstall_known_extensions": False, "autoload_known_extensions": False}


def connect_with(*extensions: str) -> duckdb.DuckDBPyConnection:
    """A DuckDB in this process that has some extensions, and loads no unsigned one afterwards.

    DuckDB checks the signature of an extension, 0.13 s of CPU, whenever a connection loads it; here
    it does so for the first connection of the process alone.
    Raises LakeError where one cannot be loaded.
    """
    _check_signatures(extensions)
    database = duckdb.connect(config={**NOTHING_BY_ITSELF, "allow_unsigned_extensions": True})
    try:
        for extension in extensions:
            load_extension(database, extension)
        # DuckDB lets nobody set it back.
        database.execute("SET allow_unsigned_extensions = false")
    except BaseException:
        database.close()
        raise
    return database


@lru_cache
def _check_signatures(extensions: tuple[str, ...]) -> None:
    with closing(duckdb.connect(config=dict(NOTHING_BY_ITSELF))) as database:
        for extension in extensions:
            load_extension(database, extension)


def load_extension(database: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load one, unpacked from its wheel if need be; LakeError where that is impossible."""
    # Loaded from the wheel's copy where it has been unpacked before; unpacking is idempotent.
    try:
        database.load_extension(extension)
    except duckdb.Error:
        try:
            # Not by DuckDB's default connection, which threads would share.
            import_extension(extension, con=database)
            database.load_extension(extension)
        except ImportError as error:
            package = f"duckdb-extension-{extension.replace('_', '-')}=={duckdb.__version__}"
            raise LakeError(f"DuckDB's extension '{extension}': pip install {package}") from error
        except duckdb.Error as error:
            said = str(error).split("\n")[0]
            raise LakeError(f"DuckDB's extension '{extension}' cannot be loaded: {said}") from error
