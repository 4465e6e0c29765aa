"""Files of a data folder that release 0.1.0 or before wrote, in the shape of version 2."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from ml_platform.storage.migrations.place import MigrationStep, Place

TABLE = "ml_platform_callbacks"


def steps(place: Place) -> Iterator[MigrationStep]:
    """What is left to be done."""
    file = _callbacks(place)
    if file.is_file():
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
            columns = database.execute(f"SELECT name FROM pragma_table_info('{TABLE}')").fetchall()
        if ("told_at",) in columns:
            yield MigrationStep(f"{file}: rename the column told_at to notified_at", _rename)


def _callbacks(place: Place) -> Path:
    return place.settings.root / "control" / "callbacks.sqlite"


def _rename(place: Place) -> None:
    with closing(sqlite3.connect(_callbacks(place))) as database, database:
        database.execute(f"ALTER TABLE {TABLE} RENAME COLUMN told_at TO notified_at")
