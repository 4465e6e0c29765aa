"""Trips that were landed, trained on, scored, judged and published: all that a backup holds."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ml_platform.access import Action, Audit
from ml_platform.backfill.local_run import compute
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.queries import quote
from ml_platform.spec.tables import computed_tables
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from tests.served import Deployment, published
from tests.trips_use_case import COMMIT, at, days, land_file, settings, trips, write_folder


def made(root: Path, **changes: object) -> Deployment:
    """A deployment whose version 1 has scored ten days; `changes` are settings."""
    chosen = settings(root).model_copy(update=changes)
    use_case = write_folder(root, "binary")
    lake, registry = Lake(chosen), Registry(chosen)
    land_file(lake, use_case, trips(1, 30), days(1, 30))
    version = train(lake, registry, use_case, at(20), COMMIT, tags={}).version
    decide(lake, registry, use_case, version, COMMIT, decided_by="ada")
    found = Deployment(root, chosen, lake, registry, use_case)
    for table in computed_tables(use_case):
        if table in {"predictions", "drift_report", "performance_report"}:
            compute(lake, registry, use_case, table, days(20, 29), "test")
    published(found)
    record(lake, "deploy")
    return found


def record(lake: Lake, what: str) -> None:
    """Write a row of the audit."""
    Audit(lake).record(Action("ada", "cli", what, "trips", "all", {}), COMMIT)


@contextmanager
def opened(made: Deployment, chosen: Settings) -> Iterator[Deployment]:
    """The same use case over what other settings name."""
    with closing(Lake(chosen)) as lake:
        yield Deployment(made.root, chosen, lake, Registry(chosen), made.use_case)


def content(lake: Lake, snapshot: int | None = None) -> dict[str, Any]:
    """Rows and a hash of every table, at a snapshot."""
    found = {}
    with lake.cursor() as cursor:
        # A table that came later is not to be looked for among Python's names.
        cursor.execute("SET python_enable_replacements = false")
        names = cursor.execute(
            "SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'lake'"
        ).fetchall()
        at = "" if snapshot is None else f"AT (VERSION => {snapshot:d})"
        for schema, table in names:
            name = f"lake.{quote(schema)}.{quote(table)}"
            try:
                found[f"{schema}.{table}"] = cursor.execute(
                    f"SELECT count(*), bit_xor(hash(t)) FROM (FROM {name} {at}) t"
                ).fetchone()
            except Exception as error:
                if "does not exist" not in str(error):
                    raise
    return found


def history_of(lake: Lake) -> dict[int, dict[str, Any]]:
    """What every table held at every snapshot."""
    with lake.cursor() as cursor:
        newest = lake.snapshot(cursor)
    return {snapshot: content(lake, snapshot) for snapshot in range(1, newest + 1)}
