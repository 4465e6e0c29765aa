"""The leak check: hide what was not known, compute again, compare.

A cut at moment t hides every source row that was not known at t. Whatever a view says about
moments up to t has to stay as it is; where it does not, the feature looked into the future. Of
labels that is asked of what they say to be known by t.

Of a range many windows are checked, each computed by itself: what a window takes from those after
it, or from before its lookback, differs too. At the last cut of a window that was computed alone,
and of the first one of a range, sources are shown from twice as far back: that changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from ml_platform.features.leak.comparison import (
    RowComparison,
    RowDifference,
    micros_of,
    moment_at,
    types_of,
)
from ml_platform.features.leak.cuts import (
    RUN,
    Candidates,
    choose_moments,
    choose_runs,
    drawn_by,
)
from ml_platform.features.leak.diagnosis import explain
from ml_platform.features.leak.report import LeakReport
from ml_platform.features.leak.shown import STORED, SourceCopies
from ml_platform.features.leak.subjects import CheckedQuery, subject_of
from ml_platform.features.leak.tolerances import measure_tolerances
from ml_platform.features.views import Sight
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake, Written

CUTS_ALONE = 16
"""Moments at which a window is checked that was written alone."""
CUTS_IN_A_RANGE = 120
"""Moments at which a range is checked at most, all windows together."""
CUTS_A_WINDOW = 2
"""Windows of a range that are checked at so many moments each; fewer windows at more."""
FEWEST_CUTS = 6
FEWEST_IN_A_MONTH = 2 * RUN
"""Moments at which ranges of up to so many windows are checked at least: some on each weekday."""
WORK = 75_000
"""Work of the cuts of a check, in source rows: so much is done whatever is computed."""
SHARE_OF_WORK = 0.12
"""Of the source rows of a range: so much work is done where that is more."""
WHOLE, CUTS_IN_A_MONTH = 31, 4
"""Ranges of up to so many windows may take three times the work, for so many cuts in each."""
MOST_FOUND = 3
"""Windows with a leak after which the rest of a range is not checked: why costs many queries."""
WORK_OF_A_QUERY = 1_500
"""What a query costs however few rows it reads, in rows."""
NARROW = 100
WORK_OF_A_FEATURE, WORK_OF_A_COLUMN = 60, 3
"""What each column more costs that a query yields, or that its sources have, beyond so many."""


def check_written(
    lake: Lake, use_case: UseCase, view: str | None, written: Written
) -> list[LeakReport]:
    """Check a view where it was just written: a single window, or many of a range.

    view: None for the labels, of which those that came back are left aside. Windows without rows
    are left out. Looks at the lake as the write left it: what others have written since is no leak.
    """
    filled = [window for window, rows in written.rows.items() if rows]
    return check_windows(lake, use_case, view, filled, written.snapshot)


def check_windows(
    lake: Lake, use_case: UseCase, view: str | None, windows: Sequence[Window], snapshot: int
) -> list[LeakReport]:
    """Check windows of a view that have rows at a snapshot; if they are many, some of them.

    view: None for the labels. Which windows and moments these are depends on the snapshot.
    """
    if not windows:
        return []
    subject = subject_of(use_case, view)
    with lake.cursor(use_case.timezone) as cursor:
        shown = SourceCopies(lake, cursor, subject, snapshot)
        cuts = _cuts(shown, windows)
        most = max(1, cuts // CUTS_A_WINDOW)
        runs = choose_runs(use_case, subject.reach, windows, most, snapshot)
        each = cuts // sum(map(len, runs))
        # A window that was stored with those before it shows by itself what it took from them.
        first, reports = runs[0][0], list[LeakReport]()
        for run in runs:
            reports += _check_run(shown, run, each, first, turn=len(reports))
            if _found(reports) >= MOST_FOUND:
                break
        return reports


def _check_run(
    shown: SourceCopies, run: Sequence[Window], cuts: int, farther: Window, turn: int
) -> list[LeakReport]:
    covered = _range(run)
    with shown.lake.threads.suited(shown.columns, partial(shown.count_bytes, covered)):
        shown.copy(covered)
        return _Check(shown, farther, turn).windows(run, cuts)


def check_leak(
    lake: Lake,
    use_case: UseCase,
    view: str | None,
    window: Window,
    cuts: int = CUTS_ALONE,
    snapshot: int | None = None,
) -> LeakReport:
    """Compare a stored window of a view with what it yields when the future is hidden.

    view: None for the labels; cuts: at how many moments of the window at most; snapshot: of the
    lake, by default the newest. Raises EmptyPartition where the window has no rows.
    """
    subject = subject_of(use_case, view)
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor) if snapshot is None else snapshot
        shown = SourceCopies(lake, cursor, subject, snapshot)
        shown.copy(window)
        shown.require_rows(window)
        (report,) = _Check(shown, window).windows([window], cuts)
        return report


def _cuts(shown: SourceCopies, windows: Sequence[Window]) -> int:
    """At how many moments some windows are checked, all together.

    As a share of what computing them took, and enough of them where that is little.
    """
    most = CUTS_ALONE if len(windows) == 1 else CUTS_IN_A_RANGE
    covered = shown.subject.sees(Sight(_range(windows), shown.snapshot))
    rows = shown.count_rows(covered)
    share = _seconds(shown.subject.sees(Sight(windows[-1], shown.snapshot))) / _seconds(covered)
    affordable = max(WORK, SHARE_OF_WORK * rows) / (share * rows + _work_of_a_query(shown.subject))
    fewest = FEWEST_CUTS
    if len(windows) <= WHOLE:
        affordable = max(affordable, min(3 * affordable, CUTS_IN_A_MONTH * len(windows)))
        fewest = FEWEST_IN_A_MONTH if len(windows) > 1 else FEWEST_CUTS
    return max(fewest, min(most, int(affordable)))


def _work_of_a_query(subject: CheckedQuery) -> int:
    """What a query costs however few rows it reads, in rows; DuckDB plans each column of it."""
    sources = (subject.use_case.sources[name] for name in subject.reads)
    features, columns = len(subject.table.columns), sum(len(each.columns) for each in sources)
    return (
        WORK_OF_A_QUERY
        + WORK_OF_A_FEATURE * max(0, features - NARROW)
        + WORK_OF_A_COLUMN * max(0, columns - NARROW)
    )


def _range(windows: Sequence[Window]) -> Window:
    return Window(windows[0].start, windows[-1].end)


def _found(reports: Sequence[LeakReport]) -> int:
    return sum(report.problem is not None for report in reports)


def _seconds(window: Window) -> float:
    return (utc(window.end) - utc(window.start)).total_seconds()


@dataclass
class _Check:
    """Cuts through windows of what was copied."""

    shown: SourceCopies
    farther: Window
    """The window of which more than its lookback, or its horizon, is shown."""
    turn: int = 0
    """Windows that were checked before."""
    comparison: RowComparison = field(init=False)
    covered: Window = field(init=False)
    is_exact: bool = True
    """Whether no row has differed so far, not even by rounding."""
    measured: set[Window] = field(default_factory=set)
    """Windows whose rounding is known."""

    def __post_init__(self) -> None:
        subject = self.shown.subject
        types = types_of(self.shown.cursor, STORED, list(subject.values))
        self.comparison = RowComparison(subject.entity, types)

    @property
    def subject(self) -> CheckedQuery:
        return self.shown.subject

    def windows(self, windows: Sequence[Window], cuts: int) -> list[LeakReport]:
        """A report of each window, checked at some moments."""
        self.covered = _range(windows)
        candidates = self.shown.candidates(windows)
        reports: list[LeakReport] = []
        for turn, (window, found) in enumerate(zip(windows, candidates, strict=True), self.turn):
            reports.append(self._window(window, self._moments(window, found, cuts, turn)))
            if _found(reports) >= MOST_FOUND:
                break
        return reports

    def _moments(
        self, window: Window, found: Candidates, cuts: int, turn: int
    ) -> tuple[datetime, ...]:
        case, subject = self.subject.use_case, self.subject
        draw = drawn_by(case.name, subject.name, case.calendar.key(window), self.shown.snapshot)
        zone = case.calendar.timezone
        bounds = micros_of(window.start), micros_of(window.end)
        if self.subject.is_of_labels and found.rows:
            # They become known long after their window.
            bounds = found.rows[0], found.rows[-1]
        moments = choose_moments(found, bounds, cuts, draw, turn)
        return tuple(moment_at(m, zone) for m in moments)

    def _window(self, window: Window, moments: tuple[datetime, ...]) -> LeakReport:
        compared = 0
        for sight in self._sights(window, moments):
            rows, difference = self._compare(sight)
            compared += rows
            if difference:
                problem = explain(self.shown, sight, self._comparison(sight), difference)
                self.shown.copy(self.covered)
                return LeakReport(self.subject.name, window, moments, compared, problem)
        return LeakReport(self.subject.name, window, moments, compared, None)

    def _sights(self, window: Window, moments: tuple[datetime, ...]) -> list[Sight]:
        snapshot = self.shown.snapshot
        cuts = [Sight(window, snapshot, moment) for moment in moments]
        if window != self.farther:
            return cuts
        if self.subject.is_of_labels:
            return [*cuts, Sight(window, snapshot, farther=True)]
        return [*cuts[:-1], *(replace(cut, farther=True) for cut in cuts[-1:])]

    def _compare(self, sight: Sight) -> tuple[int, RowDifference | None]:
        shown, cursor = self.shown, self.shown.cursor
        zone, comparison = self.subject.use_case.calendar.timezone, self._comparison(sight)
        if self.is_exact:
            fingerprints = shown.stored_fingerprints(sight), shown.again_fingerprints(sight)
            rows, differs = comparison.count_fingerprints(cursor, *fingerprints)
            if not differs:
                return rows, None
            self.is_exact = not self.comparison.floats
        stored, again = shown.stored(sight), shown.again(sight)
        rows, differs = comparison.count(cursor, stored, again)
        if not differs:
            return rows, None
        if self.comparison.floats and sight.range not in self.measured:
            self._tolerate(sight)
        return rows, self._comparison(sight).first(cursor, stored, again, zone)

    def _comparison(self, sight: Sight) -> RowComparison:
        # Of labels that are known by a moment, later rows may have made later ones.
        ignores_new = self.subject.is_of_labels and sight.known_by is not None
        return replace(self.comparison, ignores_new=ignores_new)

    def _tolerate(self, sight: Sight) -> None:
        self.measured.add(sight.range)
        found = measure_tolerances(self.shown, self.comparison, sight)
        known = self.comparison.tolerances
        self.comparison = self.comparison.tolerating(
            {name: max(size, known.get(name, 0.0)) for name, size in found.items()}
        )
