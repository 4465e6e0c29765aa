"""Drift and performance of single segments: rows with one value of a declared column.

A segment that dies is a small share of all rows, so the report of them all hardly moves. Each
segment that is large enough is held against the same segment of the reference sample, over the rows
that trail up to a window, and its predictions are measured by the labels known by the window's end.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import duckdb
import pandas as pd

from ml_platform.metrics import measure
from ml_platform.monitoring.columns import Readings, monitored_columns
from ml_platform.monitoring.readings import readings_of
from ml_platform.monitoring.scores import (
    ColumnDrift,
    Trail,
    is_failure,
    measure_drift,
    trail,
)
from ml_platform.monitoring.segment_rows import (
    SegmentRows,
    requests_in_segments,
    rows_in_segments,
    segment_columns,
)
from ml_platform.registry import ModelVersion
from ml_platform.spec.use_case import SEGMENT_REPORTS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table
from ml_platform.storage.tables import WINDOW_START, naive_utc

MOST_SEGMENTS = 200
"""Of a column; the largest of the reference sample are reported."""
NO_VALUE = "(none)"
KINDS = {
    "examples": frozenset({"request", "feature"}),
    "predictions": frozenset({"prediction"}),
    "labels": frozenset({"label"}),
}
"""Which monitored columns the rows of each table have."""


@dataclass(frozen=True)
class SegmentReport:
    """What one window says of one segment."""

    segment_column: str
    segment: str
    rows: int
    """Examples in the window's trail."""
    reference_rows: int
    judged: int
    """Columns that could be judged."""
    drifted: tuple[str, ...]
    """Columns that drifted, with their shares of nulls where it is these."""
    metric: str
    value: float | None
    """The model's metric on the segment's labelled rows; None where they are too few."""
    labelled: int
    status: str
    """`judged`, `gone` where no row came any more, or why it is not judged."""
    failed: bool | None
    """Whether it drifted, is gone or breaks its bounds; None where it is not judged."""

    @property
    def name(self) -> str:
        return f"{self.segment_column}={self.segment}"

    def __str__(self) -> str:
        if self.status == "gone":
            return f"{self.name}: no rows any more"
        said = [f"{', '.join(self.drifted)} drifted"] if self.drifted else []
        if self.value is not None:
            said.append(f"{self.metric} {self.value:.4f} on {self.labelled} labelled rows")
        return f"{self.name}: {'; '.join(said) or self.status}"


def segments_table(use_case: UseCase, *, live: bool = False) -> Table:
    """Where segments are reported, beside the drift report: a row for each of each window.

    live: those of the rows that were predicted on request.
    """
    return Table(
        schema=use_case.name,
        name=SEGMENT_REPORTS[live],
        columns={
            "window_at": "TIMESTAMPTZ",
            "segment_column": "VARCHAR",
            "segment": "VARCHAR",
            "rows": "BIGINT",
            "reference_rows": "BIGINT",
            "judged": "BIGINT",
            "drifted": "VARCHAR[]",
            "metric": "VARCHAR",
            "value": "DOUBLE",
            "labelled": "BIGINT",
            "status": "VARCHAR",
            "failed": "BOOLEAN",
            "reference_version": "INTEGER",
            "snapshot": "BIGINT",
        },
        order=("segment_column", "segment"),
        stamps=("snapshot",),
    )


def judge_segments(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    champions: Mapping[Window, int],
    models: Mapping[int, ModelVersion],
    snapshot: int,
    *,
    live: bool = False,
) -> dict[Window, list[SegmentReport]]:
    """The segments of windows, each by its champion; none where the use case declares none.

    live: of what was predicted on request, by the columns that the log keeps as they are.
    """
    columns = segment_columns(use_case, live=live)
    if not champions or not columns:
        return {}
    trails = [trail(use_case, window, version) for window, version in champions.items()]
    covered = Window(min(t.since for t in trails), max(t.until for t in trails))
    read = requests_in_segments if live else rows_in_segments
    rows = read(cursor, lake, use_case, covered, snapshot)
    found: dict[Window, list[SegmentReport]] = {window: [] for window in champions}
    for column in columns:
        known = {version: _names_of(m.reference[column]) for version, m in models.items()}
        named = {table: _names_of(each[column]) for table, each in rows.tables.items()}
        for name in _largest(known.values()):
            part = rows.where({table: names == name for table, names in named.items()})
            references = {v: m.reference[known[v] == name] for v, m in models.items()}
            reports = _reports(use_case, (column, name), part, references, trails)
            for window, report in zip(champions, reports, strict=True):
                found[window].append(report)
    return found


def latest_segments(
    lake: Lake, use_case: UseCase, window: Window | None = None
) -> tuple[Window, list[SegmentReport]] | None:
    """The newest reported window and its segments, or those of one; None where it has none."""
    table = segments_table(use_case)
    with lake.cursor() as cursor:
        if table.name not in lake.tables(cursor, use_case.name):
            return None
        names = ", ".join(each.name for each in fields(SegmentReport))
        rows = cursor.execute(
            f"""SELECT {WINDOW_START}, {names} FROM {table.sql}
            WHERE {WINDOW_START} = coalesce($1, (SELECT max({WINDOW_START}) FROM {table.sql}))
            ORDER BY segment_column, segment""",
            [naive_utc(window.start) if window else None],
        ).fetchall()
    if not rows:
        return None
    found = use_case.calendar.window_stored(rows[0][0])
    known = {each.name: each for each in fields(SegmentReport)}
    reports = [dict(zip(known, row[1:], strict=True)) for row in rows]
    return found, [SegmentReport(**{**r, "drifted": tuple(r["drifted"])}) for r in reports]


def _reports(
    use_case: UseCase,
    segment: tuple[str, str],
    part: SegmentRows,
    references: Mapping[int, pd.DataFrame],
    trails: Sequence[Trail],
) -> Iterator[SegmentReport]:
    declared = use_case.monitoring.segments
    drift = use_case.monitoring.drift.model_copy(update={"min_rows": declared.min_rows})
    # Of its own column a segment has one value.
    others = [c for c in monitored_columns(use_case) if c.name != segment[0]]
    readings: dict[str, Readings] = {}
    for table, rows in part.tables.items():
        there = [c for c in others if c.kind in KINDS[table] and c.name in rows]
        readings |= readings_of(there, rows)
    columns = [c for c in others if c.name in readings]
    judged = measure_drift(columns, readings, references, trails, drift)
    for each, scored in zip(trails, judged, strict=True):
        yield _report(use_case, segment, part, len(references[each.version]), each, scored)


def _report(
    use_case: UseCase,
    segment: tuple[str, str],
    part: SegmentRows,
    reference_rows: int,
    span: Trail,
    scored: Sequence[ColumnDrift],
) -> SegmentReport:
    declared, metric = use_case.monitoring.segments, use_case.model.metric
    rows = len(_between(part["examples"], span.since, span.until))
    drifted = tuple(column.named for column in scored if column.drifted)
    judged = sum(column.drifted is not None for column in scored)
    known = _labelled(part, span)
    value = None
    if len(known) >= declared.min_rows:
        value = measure(use_case.label.task, known["label"], known).get(metric)
    failed: bool | None = None
    status = "judged"
    if reference_rows < declared.min_rows:
        status = "too few rows in the reference"
    elif rows == 0:
        status, failed = "gone", True
    elif not judged:
        status = "too few rows"
    else:
        failed = is_failure(len(drifted), judged, use_case.monitoring.drift.share)
        failed = failed or (value is not None and not declared.performance.hold(value))
    return SegmentReport(
        segment_column=segment[0], segment=segment[1], rows=rows, reference_rows=reference_rows,
        judged=judged, drifted=drifted, metric=metric, value=value, labelled=len(known),
        status=status, failed=failed,
    )  # fmt: skip


def _labelled(part: SegmentRows, span: Trail) -> pd.DataFrame:
    """Predictions of a trail beside their labels, where these were known by its end."""
    keys = list(part.keys)
    labels = _between(part["labels"], span.since, span.until)
    labels = labels[labels["known_at"] < pd.Timestamp(span.until)]
    if "replaced_at" in labels:
        labels = labels[~(labels["replaced_at"] < pd.Timestamp(span.until))]
    predictions = _between(part["predictions"], span.since, span.until)
    return predictions.merge(labels[[*keys, "label"]], on=keys, how="inner")


def _between(rows: pd.DataFrame, since: datetime, until: datetime) -> pd.DataFrame:
    times = rows["event_time"]
    return rows[(times >= pd.Timestamp(since)) & (times < pd.Timestamp(until))]


def _largest(names: Iterable["pd.Series[str]"]) -> list[str]:
    return sorted(pd.concat(list(names)).value_counts().index[:MOST_SEGMENTS])


def _names_of(values: "pd.Series[Any]") -> "pd.Series[str]":
    """Texts that name segments: numbers as people write them."""
    texts = [
        NO_VALUE if missing else f"{value:g}" if isinstance(value, float) else str(value)
        for value, missing in zip(values, values.isna(), strict=True)
    ]
    return pd.Series(texts, index=values.index, dtype=object)
