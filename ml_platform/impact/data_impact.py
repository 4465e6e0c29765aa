"""What a landed file, a source row or a correction touched: partitions, versions, decisions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import duckdb

from ml_platform.impact.dependents import DependentsQuery
from ml_platform.impact.partitions import (
    Followed,
    TableImpact,
    Touched,
    follow,
    readers,
    spanned,
    touched_by,
)
from ml_platform.impact.subjects import Subject
from ml_platform.impact.versions import Rows, compared_with, trained_with, written_by
from ml_platform.registry import Promotion, Registry, TrainedVersion, history
from ml_platform.spec.tables import downstream_of, reads_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake


@dataclass(frozen=True)
class DataImpact:
    """Everything that some rows of a source touched, by what the lake stores of it."""

    subject: Subject
    tables: Mapping[str, TableImpact]
    """Tables that are computed from the source, with their partitions."""
    trained: tuple[TrainedVersion, ...]
    """Versions whose training set may have held them: they were there, and known, by then."""
    decisions: tuple[Promotion, ...]
    """About these versions, and about challengers that were compared with one of them."""
    by_versions: Mapping[str, tuple[Window, ...]]
    """Partitions that these versions wrote, or that report on them, in order of time."""
    dependents: Mapping[str, Rows] | None = field(default=None)
    """Rows that come out different without them, by table and partition; None if not computed."""


def data_impact(
    lake: Lake, registry: Registry, use_case: UseCase, subject: Subject, *, recompute: bool = True
) -> DataImpact:
    """What rows of a source touched.

    What may have read them is never too little: it is bounded by ranges of event time and by the
    snapshots that computations began at. recompute: say too which rows depend on them, which takes
    as long as it takes to compute the partitions that may have read them, twice.
    Raises QueryFailed and TableNotFound where these cannot be computed.
    """
    if not subject.spans:
        return DataImpact(subject, {}, (), (), {}, {} if recompute else None)
    with lake.cursor(use_case.timezone) as cursor:
        downstream = [t for t in downstream_of(use_case, [subject.source]) if t != subject.source]
        found = follow(
            lake, cursor, use_case, touched_by(subject), downstream,
            predicted_from=_known_from(use_case, subject, of_examples=True),
        )  # fmt: skip
        trained = _trained(registry, use_case, subject, found)
        decisions = history(lake, use_case)
        numbers = [each.version for each in trained]
        about = tuple(each for each in decisions if each.version in numbers)
        compared = compared_with(decisions, numbers)
        impact = DataImpact(
            subject,
            found.tables,
            trained,
            tuple(sorted((*about, *compared), key=lambda each: each.decided_at)),
            _by_versions(lake, cursor, use_case, trained) if trained else {},
        )
        if not recompute:
            return impact
        again = DependentsQuery(lake, cursor, use_case, subject, lake.snapshot(cursor))
        return replace(impact, dependents=again.dependents(found.tables))


def _known_from(use_case: UseCase, subject: Subject, *, of_examples: bool) -> datetime | None:
    """The moment before which nothing used the rows; None where that does not hold of any.

    Examples are read whenever they happened, in their first version if they were not known yet.
    """
    if not use_case.is_as_known:
        return None
    is_example = subject.source == use_case.examples.source
    if not subject.is_correction and (of_examples or is_example):
        return None
    return subject.known_from


def _trained(
    registry: Registry, use_case: UseCase, subject: Subject, found: Followed
) -> tuple[TrainedVersion, ...]:
    """Versions whose training set may have held the rows, as examples, features or labels."""
    ranges: list[tuple[Window, int]] = []
    for table in (use_case.examples.source, "labels"):
        ranges += [(each.range, each.since) for each in found.touched.get(table, ())]
    for read in reads_of(use_case, "predictions"):
        entries = found.touched.get(read.table)
        if entries and read.table != use_case.examples.source:
            joined = readers(use_case.calendar, read, spanned(entries))
            ranges.append((joined, min(each.since for each in entries)))
    if not ranges:
        return ()
    known_from = _known_from(use_case, subject, of_examples=False)
    return trained_with(registry.trained(use_case), use_case, ranges, known_from)


def _by_versions(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase,
    trained: Sequence[TrainedVersion],
) -> dict[str, tuple[Window, ...]]:  # fmt: skip
    """Partitions that versions wrote or that report on them, and those that have read these."""
    cutoff = min((each.cutoff for each in trained), key=utc)
    since = min(each.snapshot for each in trained)
    written = written_by(cursor, lake, use_case, [each.version for each in trained], cutoff)
    found = {table: set(rows) for table, rows in written.items()}
    if predicted := found.get("predictions"):
        origin = {"predictions": [Touched(window, since) for window in predicted]}
        later = [t for t in downstream_of(use_case, ["predictions"]) if t != "predictions"]
        for table, impact in follow(lake, cursor, use_case, origin, later).tables.items():
            found[table] = found.get(table, set()) | {*impact.read}
    return {
        table: tuple(sorted(windows, key=lambda window: utc(window.start)))
        for table, windows in found.items()
    }
