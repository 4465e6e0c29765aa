"""What rows say of examples that are known only after their event time."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.features.frame import example_items
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.sources.arrivals import arrivals
from ml_platform.sources.listing import list_landing
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import is_time, literal, quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.storage.tables import widened_sql

MOST_BYTES = 16_000_000
"""Landing files of a source that are looked into before they are ingested, all together."""


@dataclass(frozen=True)
class TooLate:
    """Something of the examples that is not known at their event time, in some rows."""

    where: str
    """Place in the declaration, such as `sources.trips.known_at`."""
    rows: int
    of: int
    """All rows that were looked at."""
    problem: str

    def __str__(self) -> str:
        share = self.rows / self.of
        return f"{self.where}: {self.rows:,} of {self.of:,} rows ({share:.1%}) {self.problem}"


def find_too_late(lake: Lake, use_case: UseCase) -> tuple[TooLate, ...]:
    """What is known too late in rows that have been ingested; empty where none have.

    Rows whose declared `known_at` is after their event time, request columns that are times after
    it, and rows that a rule keeps out because of a column that no request brings.
    """
    with lake.cursor(use_case.timezone) as cursor:
        try:
            lake.relation(cursor, use_case.name, use_case.examples.source)
        except TableNotFound:
            return ()
        # What is declared may have columns that no row was ingested with yet.
        relation = widened_sql(cursor, source_table(use_case, use_case.examples.source))
        return (*_late_rows(cursor, use_case, relation), *_late_rules(lake, cursor, use_case))


def find_too_late_landed(settings: Settings, use_case: UseCase) -> tuple[TooLate, ...]:
    """As `find_too_late`, of what has landed; in a lake of its own, so that nothing is ingested.

    Only files of a folder are looked into, and only where they are small.
    """
    source = use_case.examples.source
    folder = Path(settings.landing_uri, use_case.name)
    if not use_case.sources[source].files or not folder.is_dir():
        return ()
    with TemporaryDirectory() as temporary:
        # Not a copy of the settings, which could name parts of the real lake.
        aside = Settings.model_construct(
            data=Path(temporary), landing=settings.landing_uri, landing_settle_seconds=0.0
        )
        with closing(Lake(aside)) as lake:
            listed = list_landing(lake, use_case, source)
            if sum(file.size for file in listed) > MOST_BYTES:
                return ()
            commit = Commit("check", use_case.code_version)
            landed = arrivals(lake, use_case, source, commit, datetime.now(UTC))
            if windows := list(landed.windows):
                ingest(lake, use_case, source, Window(windows[0].start, windows[-1].end), commit)
            return find_too_late(lake, use_case)


def _late_rows(
    cursor: duckdb.DuckDBPyConnection, use_case: UseCase, relation: str
) -> Iterator[TooLate]:
    declared = use_case.examples
    source = use_case.sources[declared.source]
    times = [name for name, kind in declared.request.items() if is_time(kind)]
    # The declared expression, not the stored column: a correction is known later than its row.
    known = f"CAST(({source.known_at_sql}) AS TIMESTAMPTZ) AS __known"
    late = [_after(name) for name in ("__known", *times)]
    total, known_late, *later = cursor.execute(
        f"SELECT count(*), {', '.join(late)} "
        f"FROM (SELECT {example_items(use_case)}, {known} FROM {relation})"
    ).fetchall()[0]
    if known_late:
        yield TooLate(
            f"sources.{declared.source}.known_at", known_late, total,
            "are known only after their event time, at which they are predicted; take as "
            "`event_time` the time from which on all of the row is known",
        )  # fmt: skip
    for name, rows in zip(times, later, strict=True):
        if rows:
            yield TooLate(
                f"examples.columns '{name}'", rows, total,
                "have a time after their event time there; leave the column out unless it is a "
                "plan that is known by then",
            )  # fmt: skip


def _after(name: str) -> str:
    moment = f"CAST({quote(name)} AS TIMESTAMPTZ)"
    return f"count(*) FILTER ({moment} > CAST(event_time AS TIMESTAMPTZ))"


def _late_rules(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase
) -> Iterator[TooLate]:
    """Rules over columns that no request brings, and how many rows each one kept out."""
    declared = use_case.examples
    source = use_case.sources[declared.source]
    if not source.rules:
        return
    # sqlglot takes 0.13 s to import.
    from ml_platform.spec.lineage import columns_read

    brought = {*columns_read(declared.columns, source.columns), *declared.entity, source.event_time}
    try:
        quarantine = lake.relation(cursor, use_case.name, "quarantine")
        relation = lake.relation(cursor, use_case.name, declared.source)
    except TableNotFound:
        return
    ((kept,),) = cursor.execute(f"SELECT count(*) FROM {relation}").fetchall()
    for rule in source.rules:
        unknown = [c for c in columns_read([rule], source.columns) if c not in brought]
        if not unknown:
            continue
        said = literal(f"breaks the rule: {rule}")
        ((rows,),) = cursor.execute(
            f"SELECT count(*) FROM {quarantine} "
            f"WHERE source = {literal(declared.source)} AND contains(reason, {said})"
        ).fetchall()
        if rows:
            yield TooLate(
                f"sources.{declared.source}.rules '{rule}'", rows, rows + kept,
                f"break it, which no request can show, since none brings {', '.join(unknown)}: "
                "they are predicted when asked for, and missing from training and from what "
                "measures the model; let labels.sql leave them out, or remove the rule",
            )  # fmt: skip
