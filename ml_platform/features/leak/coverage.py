"""What has been checked for leaks, and when; leaks that are rare are found by many checks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ml_platform.features.leak.check import check_written
from ml_platform.features.leak.report import LeakReport
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.storage import Commit, Lake, Table, Written, append
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class Coverage:
    """How much of a feature table, or of the labels, has been checked."""

    table: str
    partitions: int
    """With rows."""
    checked: int
    """Of these, how many were checked at least once."""
    moments: int
    """All different moments that were tried, of all partitions."""
    rows_compared: int
    last_checked_at: datetime
    found: int
    """Partitions whose newest check found a leak."""


def leak_checks_table(use_case: UseCase) -> Table:
    """What was tried; it has no windows of its own."""
    return Table(
        schema=use_case.name,
        name="leak_checks",
        columns={
            "table_name": "VARCHAR",
            "window_at": "TIMESTAMP",
            "moments": "TIMESTAMPTZ[]",
            "rows_compared": "BIGINT",
            "problem": "VARCHAR",
            "checked_at": "TIMESTAMPTZ",
        },
        order=("table_name", "window_at"),
    )


def check_and_note(
    lake: Lake, use_case: UseCase, view: str | None, written: Written, commit: Commit
) -> list[LeakReport]:
    """Check a view where it was just written, the labels where there is none; keep what was tried.

    commit: that of what was written.
    """
    checking = replace(commit, began=time.monotonic())
    reports = check_written(lake, use_case, view, written)
    note_checks(lake, use_case, view, reports, checking)
    return reports


def note_checks(
    lake: Lake, use_case: UseCase, view: str | None, reports: Sequence[LeakReport], commit: Commit
) -> None:
    """Keep what was tried of a view, or of the labels where there is none."""
    if not reports:
        return
    table, now = _checked_table(view), datetime.now(UTC)
    rows = ", ".join(
        f"({literal(table)}, TIMESTAMP {literal(str(naive_utc(report.window.start)))}, "
        f"{_moments(report)}, {report.rows_compared}, "
        f"{literal(report.problem) if report.problem else 'NULL'}, "
        f"TIMESTAMPTZ {literal(now.isoformat())})"
        for report in reports
    )
    target = leak_checks_table(use_case)
    names = ", ".join(target.columns)
    message = f"{use_case.name}/{table}: leak check"
    own = Commit(commit.run_id, commit.code_version, message, began=commit.began)
    with lake.cursor() as cursor:
        append(lake, cursor, target, f"SELECT * FROM (VALUES {rows}) AS r({names})", own)


def read_coverage(lake: Lake, use_case: UseCase) -> tuple[Coverage, ...]:
    """What has been checked, by table in the order of declaration; those never checked left out."""
    target = leak_checks_table(use_case)
    with lake.cursor() as cursor:
        tables = lake.tables(cursor, use_case.name)
        if target.name not in tables:
            return ()
        rows = cursor.execute(
            f"""SELECT table_name, count(DISTINCT window_at), sum(moments), sum(rows_compared),
                epoch_us(max(checked_at)), count(*) FILTER (found)
            FROM (
                SELECT table_name, window_at, max(checked_at) AS checked_at,
                    len(list_distinct(flatten(list(moments)))) AS moments,
                    sum(rows_compared) AS rows_compared,
                    arg_max(problem IS NOT NULL, checked_at) AS found
                FROM {target.sql} GROUP BY ALL
            ) GROUP BY table_name"""
        ).fetchall()
        found = {name: counts for name, *counts in rows}
        filled = {
            name: cursor.execute(
                f"SELECT count(DISTINCT {WINDOW_START}) FROM "
                f"{lake.relation(cursor, use_case.name, name)}"
            ).fetchone()
            for name in found
            if name in tables
        }
    names = [*map(feature_table, use_case.features), _checked_table(None)]
    return tuple(_coverage(name, filled[name], found[name]) for name in names if name in filled)


def _coverage(name: str, filled: tuple[int] | None, counts: Sequence[int]) -> Coverage:
    checked, moments, rows, last, leaks = map(int, counts)
    partitions = filled[0] if filled else 0
    last_checked_at = datetime.fromtimestamp(last / 1e6, UTC)
    return Coverage(
        name, partitions, min(checked, partitions), moments, rows, last_checked_at, leaks
    )


def _checked_table(view: str | None) -> str:
    return "labels" if view is None else feature_table(view)


def _moments(report: LeakReport) -> str:
    listed = ", ".join(literal(moment.isoformat()) for moment in report.cuts)
    return f"[{listed}]::TIMESTAMPTZ[]"
