"""The target of a publication, opened."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ml_platform.errors import TargetError
from ml_platform.publish.adbc import AdbcTarget
from ml_platform.publish.delta import DeltaTarget
from ml_platform.publish.iceberg import IcebergTarget
from ml_platform.publish.mysql import MySqlTarget
from ml_platform.publish.parquet_folder import ParquetTarget
from ml_platform.publish.postgres import PostgresTarget
from ml_platform.publish.sqlite import SqliteTarget
from ml_platform.publish.target import Target
from ml_platform.settings import Settings
from ml_platform.spec.values import no_database

KINDS: dict[str, Callable[[Settings, str, str], Target]] = {
    "mysql": MySqlTarget, "postgres": PostgresTarget, "sqlite": SqliteTarget,
    "adbc": AdbcTarget, "parquet": ParquetTarget, "delta": DeltaTarget,
    "iceberg": IcebergTarget,
}  # fmt: skip


@contextmanager
def opened_target(settings: Settings, database: str) -> Iterator[Target]:
    """A connection to a database of the setting `databases`, closed at the end.

    Raises TargetError where there is no such database or it refuses, TargetUnavailable where its
    server does not answer.
    """
    secret = settings.databases.get(database)
    if secret is None:
        raise TargetError(no_database(database, settings.databases))
    kind, _, where = secret.get_secret_value().partition(":")
    if kind not in KINDS:
        begin = " or ".join(f"'{each}:'" for each in KINDS)
        raise TargetError(f"setting databases: '{database}' should begin with {begin}")
    try:
        target = KINDS[kind](settings, database, where)
    except ValueError as error:
        raise TargetError(f"database '{database}': {error}") from None
    try:
        yield target
    finally:
        target.close()
