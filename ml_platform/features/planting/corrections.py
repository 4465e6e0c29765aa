"""Late corrections, planted in a copy: what was known before they arrived has to stay.

Rows of the older half of the windows are corrected some windows later. What was computed before is
compared with what is computed then, with values as known and with values as revised.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import duckdb

from ml_platform.features.frame import join_sql
from ml_platform.features.known import features_sql, labels_sql
from ml_platform.features.leak import check_leak
from ml_platform.features.leak.comparison import RELATIVE_TOLERANCE, RowComparison, types_of
from ml_platform.features.leak.subjects import LABELS
from ml_platform.features.planting.copies import COMMIT, Copy
from ml_platform.features.planting.corrected import correct
from ml_platform.features.planting.outcomes import LateCorrections
from ml_platform.features.views import compute_features, compute_labels, instant, windows_sql
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Written

AS_KNOWN, AS_REVISED = "late corrections, values as known", "late corrections, values as revised"
TRAINING_SET = "training set"
JUST_BEFORE = timedelta(microseconds=1)
LATER = timedelta(days=366)
"""After the newest window: all labels are known by then."""
CHECKED, CUTS = 3, 4
"""Windows around the newest corrected row that are checked for leaks, and moments of each."""


@dataclass(frozen=True)
class _Sides:
    """Rows before and after the corrections, as SELECTs that yield `entity` and `columns`."""

    entity: tuple[str, ...]
    columns: tuple[str, ...]
    before: str
    """Known before the corrections arrived, as computed then."""
    known: str
    """The same, as computed after them."""
    revised: str
    """The same, with revised values."""
    arrived: str
    """Known once the corrections have arrived."""
    now: str
    """What the sources say of that now."""


def plant_corrections(copied: Copy) -> Iterator[LateCorrections]:
    """Correct rows of all sources late, and compare what is computed of them.

    Features, labels and training set at the moment at which the corrections arrive; features and
    labels are checked for leaks as well. Yields nothing where there is a single window.
    """
    count = len(copied.windows)
    older, arrival = copied.windows[: count // 2], copied.windows[2 * count // 3].start
    if not older:
        return
    case = _as_known(copied)
    before = _computed_before(copied, case)
    for source in copied.sources:
        correct(copied, source, Window(older[0].start, older[-1].end), arrival)
    written = _computed(copied, case)
    around = copied.windows[max(0, count // 2 - CHECKED // 2) :][:CHECKED]
    with copied.lake.cursor(case.timezone) as cursor:
        world = _World(copied, case, cursor, arrival, before, copied.lake.snapshot(cursor))
        for view, each in written.items():
            name = LABELS if view is None else view
            problem = _problem(copied.lake, case, view, each, around)
            sides = world.labels() if view is None else world.view(view)
            yield from world.compare(name, sides, problem)
        if copied.has_labels:
            yield from world.compare(TRAINING_SET, world.training_set(), None)


def _computed_before(copied: Copy, use_case: UseCase) -> int:
    """Snapshot of what is known before the corrections; features are there, leaks in labels go."""
    if copied.has_labels:
        compute_labels(copied.lake, use_case, copied.range, COMMIT)
    with copied.lake.cursor(use_case.timezone) as cursor:
        return copied.lake.snapshot(cursor)


def _computed(copied: Copy, use_case: UseCase) -> dict[str | None, Written]:
    """What was written of each view and, under None, of the labels."""
    written: dict[str | None, Written] = {
        view: compute_features(copied.lake, use_case, view, copied.range, COMMIT)
        for view in use_case.features
    }
    if copied.has_labels:
        written[None] = compute_labels(copied.lake, use_case, copied.range, COMMIT)
    return written


def _as_known(copied: Copy) -> UseCase:
    """The use case with values as known; the model is given each view that has rows."""
    use_case = copied.use_case
    with copied.lake.cursor(use_case.timezone) as cursor:
        stored = copied.lake.tables(cursor, use_case.name)
    views = {n: v for n, v in use_case.features.items() if feature_table(n) in stored}
    model = use_case.model.model_copy(update={"features": None})
    return use_case.model_copy(update={"features": views, "model": model, "values": "as_known"})


def _problem(
    lake: Lake, use_case: UseCase, view: str | None, written: Written, windows: Sequence[Window]
) -> str | None:
    # Versions are read from the lake at each moment, which takes some times as long as a copy.
    filled = (window for window in windows if written.rows.get(window))
    reports = (check_leak(lake, use_case, view, w, CUTS, written.snapshot) for w in filled)
    return next((report.problem for report in reports if report.problem), None)


@dataclass(frozen=True)
class _World:
    """A copy before and after corrections, read through one cursor."""

    copied: Copy
    use_case: UseCase
    cursor: duckdb.DuckDBPyConnection
    arrival: datetime
    before: int
    """Snapshot without the corrections."""
    after: int

    def compare(self, name: str, sides: _Sides, problem: str | None) -> Iterator[LateCorrections]:
        """What became of a table, as known and as revised; problem: what the leak check says."""
        moved, revised, stale = (
            self._differing(sides, one, other)
            for one, other in (
                (sides.before, sides.known),
                (sides.before, sides.revised),
                (sides.arrived, sides.now),
            )
        )
        yield LateCorrections(name, AS_KNOWN, revised, problem, moved=moved, stale=stale)
        yield LateCorrections(name, AS_REVISED, revised, None, moved=revised, is_revised=True)

    def view(self, view: str) -> _Sides:
        declared = self.use_case.features[view]
        known, arrived = (
            features_sql(self._known, view, self._inside, at)
            for at in (self.arrival - JUST_BEFORE, self.arrival)
        )
        table, columns = feature_table(view), tuple(declared.features)
        return self._sides(table, declared.entity, columns, "event_time", known, arrived)

    def labels(self) -> _Sides:
        known, arrived = (
            labels_sql(self._known, self._inside, by) for by in (self.arrival, self._later)
        )
        entity = self.use_case.examples.entity
        return self._sides(LABELS, entity, ("label",), "known_at", known, arrived)

    def _sides(
        self,
        table: str,
        entity: tuple[str, ...],
        columns: tuple[str, ...],
        time: str,
        known: str,
        arrived: str,
    ) -> _Sides:
        """A stored table at both snapshots, beside what was known of it before and afterwards.

        time: column by which a row is older than the corrections.
        """
        before, now = (self._relation(table, number) for number in (self.before, self.after))
        past = f"{time} < {instant(self.arrival)}"
        before, known, now, arrived = (
            f"FROM {each} WHERE {self._inside}" for each in (before, known, now, arrived)
        )
        before, known, revised = (f"{each} AND {past}" for each in (before, known, now))
        return _Sides(entity, columns, before, known, revised, arrived, now)

    def training_set(self) -> _Sides:
        revised = self.use_case.model_copy(update={"values": "as_revised"})
        arrived, now = (
            f"FROM ({self._joined(case, self.after, self._later)}) "
            f"WHERE event_time >= {instant(self.arrival)}"
            for case in (self.use_case, revised)
        )
        return _Sides(
            self.use_case.examples.entity,
            (*self.use_case.model_columns, "label"),
            f"FROM ({self._joined(self.use_case, self.before, self.arrival)})",
            f"FROM ({self._joined(self.use_case, self.after, self.arrival)})",
            f"FROM ({self._joined(revised, self.after, self.arrival)})",
            arrived,
            now,
        )

    def _joined(self, use_case: UseCase, snapshot: int, cutoff: datetime) -> str:
        return join_sql(
            self.cursor, self.copied.lake, use_case, self.copied.range, snapshot,
            labels_known_by=cutoff,
        )  # fmt: skip

    def _differing(self, sides: _Sides, one: str, other: str) -> int:
        """Rows that are not the same on two sides, or on one side alone."""
        types = types_of(self.cursor, f"({one})", sides.columns)
        comparison = RowComparison(sides.entity, types)
        sizes = self._sizes(one, comparison.plain_floats)
        tolerant = comparison.tolerating({n: RELATIVE_TOLERANCE * s for n, s in sizes.items()})
        return tolerant.count(self.cursor, one, other)[1]

    def _sizes(self, rows: str, floats: Sequence[str]) -> dict[str, float]:
        """The largest magnitude of each column: sums that cancel are off by digits of it."""
        if not floats:
            return {}
        items = ", ".join(
            f"max(abs({name}::DOUBLE)) FILTER (isfinite({name}::DOUBLE))"
            for name in map(quote, floats)
        )
        found = self.cursor.execute(f"SELECT {items} FROM ({rows})").fetchone()
        assert found is not None
        return {name: size or 0.0 for name, size in zip(floats, found, strict=True)}

    def _relation(self, table: str, snapshot: int) -> str:
        return self.copied.lake.relation(self.cursor, self.use_case.name, table, snapshot)

    @property
    def _known(self) -> KnownVersions:
        return KnownVersions(self.copied.lake, self.cursor, self.use_case, self.after)

    @property
    def _inside(self) -> str:
        return windows_sql(self.use_case, self.copied.range)

    @property
    def _later(self) -> datetime:
        return self.copied.range.end + LATER
