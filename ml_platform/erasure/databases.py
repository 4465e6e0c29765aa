"""Databases keep what was deleted in pages that are free, and in their journals."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ml_platform.errors import LakeError
from ml_platform.settings import Settings
from ml_platform.spec.queries import literal, quote
from ml_platform.storage import Lake
from ml_platform.storage.attaching import catalog_kind, turns_file
from ml_platform.storage.known_files import METADATA
from ml_platform.storage.turns import turn
from ml_platform.upkeep.parts import is_database

BUSY_SECONDS = 60


def vacuum_catalog(lake: Lake) -> list[str]:
    """Write a catalog on PostgreSQL again without what was deleted; what could not be done."""
    if catalog_kind(lake.settings) == "sqlite":
        return []
    try:
        with lake.cursor() as cursor:
            rows = cursor.execute(
                f"""SELECT schema_name, table_name FROM duckdb_tables()
                WHERE database_name = {literal(METADATA)} AND starts_with(table_name, 'ducklake_')
                ORDER BY ALL"""
            ).fetchall()
            tables = ", ".join(f"{quote(schema)}.{quote(table)}" for schema, table in rows)
            # PostgreSQL does it in no transaction.
            cursor.execute(
                f"CALL postgres_execute({literal(METADATA)}, "
                f"{literal(f'VACUUM FULL {tables}')}, use_transaction => false)"
            )
    except LakeError as error:
        return [f"the catalog could not be vacuumed: {error}"]
    return []


def vacuum_files(settings: Settings) -> list[str]:
    """Write SQLite databases of the deployment again without what was deleted.

    Returns what could not be done: a process that reads one all the time keeps its journal.
    """
    problems = []
    for path in _databases(settings):
        lock = turns_file(settings) if path == _catalog(settings) else None
        try:
            with turn(lock):
                _vacuum(path)
        except sqlite3.Error as error:
            problems.append(f"{path} could not be vacuumed: {error}")
    return problems


def _vacuum(path: Path) -> None:
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)) as database:
        database.execute("VACUUM")
        busy, *_ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError("others read it, and its journal stays until they end")


def _catalog(settings: Settings) -> Path | None:
    if catalog_kind(settings) != "sqlite":
        return None
    return Path(settings.catalog_uri.partition(":")[2])


def _databases(settings: Settings) -> Iterator[Path]:
    """The catalog and the online store: what rows of an entity are in."""
    catalog = _catalog(settings)
    if catalog is not None and catalog.exists():
        yield catalog
    if settings.online_store is None:
        for path in sorted(settings.online_folder.glob("*.sqlite")):
            if path.is_file() and is_database(path):
                yield path
