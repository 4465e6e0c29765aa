"""Which stored partitions a change of champions makes wrong: found in the tables themselves."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb

from ml_platform.errors import TableNotFound
from ml_platform.registry import Promotion, champion_if_any
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START, naive_utc


@dataclass(frozen=True)
class RollbackStep:
    """Tables that are recomputed together, over one unbroken range."""

    tables: tuple[str, ...]
    """In the order in which they depend on each other."""
    range: Window


@dataclass(frozen=True)
class Affected:
    """Partitions to recompute, of each table in order of time. Nothing else is to be touched."""

    predictions: tuple[Window, ...] = ()
    """Those with a row of a version that is not the champion of their window."""
    drift_report: tuple[Window, ...] = ()
    """Those held against another version's training data, or that trail over such predictions."""
    performance_report: tuple[Window, ...] = ()
    """Those that measure such predictions."""
    published: Mapping[str, tuple[Window, ...]] = field(default_factory=dict)
    """Those that brought such predictions to tables of others, by table that notes it."""

    def __bool__(self) -> bool:
        return any(windows for _, windows in self.tables)

    @property
    def tables(self) -> tuple[tuple[str, tuple[Window, ...]], ...]:
        """Names of the tables with their partitions, in order of dependence."""
        own = ("predictions", "drift_report", "performance_report")
        return (*((name, getattr(self, name)) for name in own), *self.published.items())

    def steps(self, use_case: UseCase) -> tuple[tuple[RollbackStep, ...], tuple[RollbackStep, ...]]:
        """What to run at first, and what once all of that is done.

        Reports read predictions, a drift report those of weeks. So predictions come first, along
        with the reports whose partitions are the very same unbroken range; then the others.
        """
        predicted = list(use_case.calendar.ranges(self.predictions))
        first: list[RollbackStep] = []
        later: list[RollbackStep] = []
        along: list[str] = []
        for name, windows in self.tables[1:]:
            if len(predicted) == 1 and windows == self.predictions:
                along.append(name)
            else:
                later += [RollbackStep((name,), s) for s in use_case.calendar.ranges(windows)]
        first = [RollbackStep(("predictions", *along), window_range) for window_range in predicted]
        return (tuple(first), tuple(later)) if first else (tuple(later), ())


def affected_by(
    lake: Lake, use_case: UseCase, decisions: Sequence[Promotion], since: datetime
) -> Affected:
    """What is stored from a moment on and would be different if it were recomputed now.

    decisions: the promotion history, a decision that is only thought of included.
    """
    first = use_case.calendar.window_at(since).start
    with lake.cursor() as cursor:
        predicted = _stored(cursor, lake, use_case, "predictions", "model_version", first)
        drifted = _stored(cursor, lake, use_case, "drift_report", "reference_version", first)
        measured = _stored(
            cursor, lake, use_case, "performance_report", "unnest(model_versions)", first
        )
        published = {
            name: _stored(cursor, lake, use_case, name, "unnest(model_versions)", first)
            for name in map(published_table, use_case.publish)
        }
    stored = {*predicted, *drifted, *measured, *(w for each in published.values() for w in each)}
    champions = {w: champion_if_any(decisions, w.start) for w in stored}

    def others(found: Mapping[Window, _Stored]) -> set[Window]:
        return {w for w, stored in found.items() if stored.versions != {champions[w]}}

    wrong = others(predicted)
    outdated = {
        window
        for window, report in drifted.items()
        if any(
            # Also where predictions were recomputed and the report not yet.
            other in wrong or predicted[other].snapshot >= report.snapshot
            for other in _trailed(use_case, window, predicted)
        )
    }
    return Affected(
        predictions=_ordered(wrong),
        drift_report=_ordered(others(drifted) | outdated),
        performance_report=_ordered(others(measured) | (wrong & measured.keys())),
        published={
            name: _ordered(others(noted) | (wrong & noted.keys()))
            for name, noted in published.items()
        },
    )


@dataclass(frozen=True)
class _Stored:
    """What one partition of a table says of itself."""

    versions: frozenset[int]
    snapshot: int
    """State of the lake that it was made from."""


def _stored(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    table: str,
    column: str,
    since: datetime,
) -> dict[Window, _Stored]:
    try:
        relation = lake.relation(cursor, use_case.name, table)
    except TableNotFound:
        return {}
    rows = cursor.execute(
        f"""SELECT {WINDOW_START}, list(DISTINCT version), max(snapshot)
        FROM (SELECT {WINDOW_START}, snapshot, {column} AS version FROM {relation}
        WHERE {WINDOW_START} >= ?) GROUP BY ALL ORDER BY 1""",
        [naive_utc(since)],
    ).fetchall()
    return {
        use_case.calendar.window_stored(start): _Stored(frozenset(found), snapshot)
        for start, found, snapshot in rows
    }


def _trailed(use_case: UseCase, window: Window, predicted: Iterable[Window]) -> Iterator[Window]:
    since = use_case.monitoring.window.before(window.end, use_case.calendar.timezone)
    begin, end = since.astimezone(UTC), window.end.astimezone(UTC)
    for other in predicted:
        if other.end.astimezone(UTC) > begin and other.start.astimezone(UTC) < end:
            yield other


def _ordered(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(sorted(windows, key=lambda window: window.start.astimezone(UTC)))
