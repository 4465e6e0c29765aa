"""What tests of engine spark share: sessions, and the rows of a table to compare."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ml_platform.engines.spark.computing import Engine, spark_engine
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Basis, Lake

FEW = {
    # Two cores, and rows that fit in one of Spark's partitions.
    "spark.sql.shuffle.partitions": "2",
    "spark.driver.memory": "1g",
}


@contextmanager
def engine_over(lake: Lake, use_case: UseCase) -> Iterator[Engine]:
    """Spark over the newest snapshot of a lake."""
    with lake.cursor(use_case.timezone) as cursor:
        basis = Basis(lake, use_case.name, lake.snapshot(cursor))
        with spark_engine(lake, cursor, use_case, basis) as engine:
            yield engine


def rows_of(lake: Lake, use_case: UseCase, table: str) -> list[tuple[Any, ...]]:
    """All rows of a table, but for what says when they were made."""
    stamps = ["_snapshot", *(["snapshot", "scored_at"] if table == "predictions" else [])]
    with lake.cursor(use_case.timezone) as cursor:
        return cursor.execute(
            f"SELECT * EXCLUDE ({', '.join(stamps)}) "
            f"FROM lake.{quote(use_case.name)}.{quote(table)} ORDER BY ALL"
        ).fetchall()


def forget(lake: Lake, use_case: UseCase, table: str, where: str = "true") -> None:
    """Delete rows of a table as no command would."""
    with lake.cursor(use_case.timezone) as cursor:
        cursor.execute(f"DELETE FROM lake.{quote(use_case.name)}.{quote(table)} WHERE {where}")


def data_files(lake: Lake, use_case: UseCase, table: str) -> list[str]:
    """Paths of the files that hold a table now."""
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"SELECT data_file FROM ducklake_list_files('lake', '{table}', "
            f"schema => '{use_case.name}')"
        ).fetchall()
    return [path for (path,) in rows]


def settings_of(data: Any, **more: Any) -> Settings:
    return Settings(data=data, spark_master="local[2]", spark_conf=FEW, **more)
