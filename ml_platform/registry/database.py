"""MLflow's embedded database: made as a whole or not at all, however its maker ends."""

import fcntl
import re
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import NewerRelease, SchemaVersionRefused, UpgradeNeeded

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
UNFINISHED = ".unfinished"
"""What follows the name of a database that is being made."""
REVISION = "alembic_version"
OUTDATED = re.compile(r"out-of-date database schema \(found version (\w+), but expected")
"""What MLflow says of a database that another release of it made, also of a newer one."""
HELD_IN = {
    "runs": "SELECT count(*) FROM runs",
    "registered_models": "SELECT count(*) FROM registered_models",
    # MLflow makes one by itself.
    "experiments": "SELECT count(*) FROM experiments WHERE experiment_id <> 0",
}
"""Where what somebody recorded is counted, by table."""


def open_database(database: Path) -> "MlflowClient":
    """A client of a database, which is made if need be.

    MLflow makes its tables in hundreds of transactions, and cannot continue where another process
    stopped. So they are made in another file, whose content becomes the database's in one. A
    database that cannot be opened and that nothing was ever recorded in was left unfinished by
    older code, and is recreated.
    """
    with _alone(database):
        if not _tables(database):
            _fill(database, _made(database))
        try:
            return _client(database)
        except Exception as error:
            # Of MLflow, SQLAlchemy or Alembic, as far as its maker came.
            if not _holds_nothing(database):
                if (found := OUTDATED.search(str(error))) is not None:
                    raise _of_another_release(database, found[1]) from None
                raise
            made = _made(database)
            if _tables(made) <= _tables(database):
                # It is whole, and what is wrong is something else.
                _remove(made)
                raise
            _fill(database, made)
            return _client(database)


def _client(database: Path) -> "MlflowClient":
    from mlflow import MlflowClient

    uri = f"{SQLITE}{database}"
    client = MlflowClient(tracking_uri=uri, registry_uri=uri)
    # The tables of the registry are made by its first call.
    client.search_registered_models(max_results=1)
    return client


def _of_another_release(database: Path, revision: str) -> SchemaVersionRefused:
    import mlflow

    said = f"MLflow's database {database} has MLflow's schema {revision}, "
    migrations = Path(mlflow.__file__).parent / "store" / "db_migrations" / "versions"
    if any(migrations.glob(f"{revision}_*.py")):
        return UpgradeNeeded(
            f"{said}older than that of MLflow {mlflow.__version__}: stop the processes that use "
            "it, then run ml-platform upgrade --backup TARGET (--dry-run shows what it would do)"
        )
    return NewerRelease(
        f"{said}which MLflow {mlflow.__version__} does not know: install the newer one that made it"
    )


def _made(database: Path) -> Path:
    """A database that holds nothing, beside where it is to be."""
    for left in database.parent.glob(f"{database.name}{UNFINISHED}*"):
        left.unlink()
    # Never the same name: MLflow keeps a connection to what had it.
    made = database.with_name(f"{database.name}{UNFINISHED}-{secrets.token_hex(4)}")
    _client(made)
    return made


def _fill(database: Path, made: Path) -> None:
    """Replace the content of a database in one transaction; whoever has it open sees the new."""
    with closing(sqlite3.connect(made)) as source, closing(sqlite3.connect(database)) as target:
        source.backup(target)
    _remove(made)


def _remove(database: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        database.with_name(database.name + suffix).unlink(missing_ok=True)


def _holds_nothing(database: Path) -> bool:
    there = {name for name, _ in _tables(database)}
    with closing(sqlite3.connect(database)) as connection:
        counts = [
            connection.execute(HELD_IN[name]).fetchone()[0] for name in HELD_IN.keys() & there
        ]
    return not any(counts)


def _tables(database: Path) -> set[tuple[str, str]]:
    """Tables and their columns, and the revision of MLflow that they are of."""
    with closing(sqlite3.connect(database)) as connection:
        found = connection.execute(
            "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c "
            "WHERE t.type = 'table'"
        )
        tables = set(found.fetchall())
        if any(name == REVISION for name, _ in tables):
            revisions = connection.execute(f"SELECT version_num FROM {REVISION}").fetchall()
            tables |= {(REVISION, revision) for (revision,) in revisions}
    return tables


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    # Processes that make MLflow's tables side by side crash each other, so this waits however long
    # the first one takes. The operating system lets go of the lock when its holder dies.
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
