"""Predictions or features into a table of others, each partition in one transaction."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import duckdb

from ml_platform.errors import EmptyPartition
from ml_platform.publish.opening import opened_target
from ml_platform.publish.record import Counted, note, published_before, record_table, target_of
from ml_platform.publish.staging import StagedRows, stage
from ml_platform.publish.target import Part, Target, TargetTable
from ml_platform.spec.publication import Publication
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import BYTES, ROWS, Basis, Commit, Lake, Written, compute_windows
from ml_platform.storage.tables import naive_utc


@dataclass(frozen=True)
class PublishReport:
    """What was published; windows that hold nothing are left out."""

    target: str
    """The table and the mode."""
    written: Written
    """What the lake notes of it."""
    windows: Mapping[Window, Counted]


def publish_range(
    lake: Lake, use_case: UseCase, publication: str, window_range: Window, commit: Commit
) -> PublishReport:
    """Make a table of others hold the predictions, or features, of a range; note it in the lake.

    Each partition is one transaction there, so readers see a whole old partition or a whole new
    one. What was published before the process died is published again by the next one, which
    changes nothing. Publishers of one table take turns, and each reads the lake in its turn:
    whoever comes last has read what holds then.
    Raises TableNotFound or EmptyPartition where there is nothing to publish, TargetError where the
    database refuses, TargetUnavailable where it did not answer for as long as the settings allow.
    """
    declared, record = use_case.publish[publication], record_table(use_case, publication)

    def compute(cursor: duckdb.DuckDBPyConnection, basis: Basis) -> PublishReport:
        with (
            opened_target(lake.settings, declared.database) as target,
            target.exclusive(f"{use_case.name}/{publication} {declared.table}"),
        ):
            # What it waited for others is no part of what it took.
            now = replace(basis, snapshot=lake.snapshot(cursor), began=time.monotonic())
            commit.begins(now.snapshot)
            staged = stage(cursor, lake, use_case, declared, window_range, now.snapshot)
            held = published_before(cursor, lake, use_case, publication, window_range)
            windows = list(use_case.calendar.windows(window_range))
            concerned = [w for w in windows if naive_utc(w.start) in staged.rows.keys() | held]
            if not concerned:
                what = f"features of {declared.features}" if declared.features else "predictions"
                raise EmptyPartition(f"{use_case.name} has no {what} in {window_range}")
            table = _target_table(use_case, declared)
            target.prepare(cursor, table)
            counted = _write(cursor, target, table, use_case.calendar, concerned, staged.rows)
            said = _costing(commit, counted, staged)
            written = note(cursor, use_case, publication, window_range, counted, said, now)
        return PublishReport(target_of(declared), written, counted)

    return compute_windows(lake, use_case, record.name, window_range, commit, compute)


def _target_table(use_case: UseCase, declared: Publication) -> TargetTable:
    is_hourly = use_case.partitions.cadence is Cadence.hourly
    return TargetTable(
        declared.path, declared.types, declared.keyed_by, declared.mode, declared.lengths,
        declared.partition or ("event_hour" if is_hourly else "event_date"), is_hourly,
    )  # fmt: skip


def _costing(commit: Commit, counted: Mapping[Window, Counted], staged: StagedRows) -> Commit:
    """The commit, which says how much was published: the note in the lake has a row a partition."""
    rows = sum(each.rows_in for each in counted.values())
    return replace(commit, extra={**commit.extra, ROWS: str(rows), BYTES: str(staged.bytes)})


def _write(
    cursor: duckdb.DuckDBPyConnection,
    target: Target,
    table: TargetTable,
    calendar: Calendar,
    windows: Sequence[Window],
    staged: Mapping[datetime, int],
) -> dict[Window, Counted]:
    found = {}
    for window in windows:
        start = naive_utc(window.start)
        label = f"{start:%Y-%m-%d-%H}" if table.is_hourly else calendar.key(window)
        part = Part(start, naive_utc(window.end), staged.get(start, 0), label)
        found[window] = Counted(part.rows, target.write(cursor, table, part))
    return found
