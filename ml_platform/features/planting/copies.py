"""The newest rows of a use case's sources, in a lake of their own."""

from dataclasses import dataclass

from ml_platform.errors import TableNotFound
from ml_platform.features.views import Sight, windows_sql
from ml_platform.sources.tables import source_table
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Commit, Lake, replace_windows

COMMIT = Commit("planted", "")
WINDOWS = 30
"""Windows that are planted in, up to the newest one with examples."""


@dataclass(frozen=True)
class Copy:
    """Sources of a use case in a lake in which anything may be planted."""

    lake: Lake
    use_case: UseCase
    windows: tuple[Window, ...]
    """Consecutive windows that everything is computed of."""
    sources: tuple[str, ...]
    """Those of which there are rows here."""
    has_labels: bool
    """Whether all sources of the labels are there."""

    @property
    def range(self) -> Window:
        return Window(self.windows[0].start, self.windows[-1].end)


def copy_newest(lake: Lake, aside: Lake, use_case: UseCase) -> Copy:
    """Copy what the newest windows are computed of.

    lake: only read; aside: an empty one. Raises TableNotFound where no examples, or nothing of a
    view's source, have been ingested.
    """
    windows = _newest(lake, use_case)
    with lake.cursor(use_case.timezone) as cursor:
        stored = lake.tables(cursor, use_case.name)
    has_labels = bool(use_case.label.reads) and set(use_case.label.reads) <= set(stored)
    window_range = Window(windows[0].start, windows[-1].end)
    reaches = _reaches(use_case, window_range, has_labels)
    for source, reach in reaches.items():
        _copy(lake, aside, use_case, source, reach)
    return Copy(aside, use_case, windows, tuple(reaches), has_labels)


def _newest(lake: Lake, use_case: UseCase) -> tuple[Window, ...]:
    """The newest windows of the examples' source that have rows."""
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, use_case.examples.source)
        moment = (
            f"CAST({quote(use_case.sources[use_case.examples.source].event_time)} AS TIMESTAMPTZ)"
        )
        row = cursor.execute(f"SELECT max({moment}), min({moment}) FROM {relation}").fetchone()
    if row is None or row[0] is None:
        raise TableNotFound(f"{use_case.name} has no examples; ingest some first")
    last = use_case.calendar.window_at(row[0])
    return tuple(use_case.calendar.windows(Window(row[1], last.end)))[-WINDOWS:]


def _reaches(use_case: UseCase, window_range: Window, has_labels: bool) -> dict[str, Window]:
    """The range of event time that is needed of each source.

    As far as a check shows it at most, so that what reaches too far finds rows there.
    """
    zone = use_case.calendar.timezone
    sight = Sight(window_range, snapshot=0, farther=True)
    seen: dict[str, list[Window]] = {use_case.examples.source: [window_range]}
    for view in use_case.features.values():
        for source in view.reads:
            reach = Window(sight.start(view.lookback, zone), window_range.end)
            seen.setdefault(source, []).append(reach)
    for source in use_case.label.reads if has_labels else ():
        reach = Window(window_range.start, sight.end(use_case.label.horizon, zone))
        seen.setdefault(source, []).append(reach)
    return {
        source: Window(
            min((each.start for each in reaches), key=utc),
            max((each.end for each in reaches), key=utc),
        )
        for source, reaches in seen.items()
    }


def _copy(lake: Lake, aside: Lake, use_case: UseCase, source: str, reach: Window) -> None:
    calendar, table = use_case.calendar, source_table(use_case, source)
    windows = list(calendar.windows(reach))
    whole = Window(windows[0].start, windows[-1].end)
    with lake.cursor(use_case.timezone) as cursor:
        relation = lake.relation(cursor, use_case.name, source)
        stored = {name for name, *_ in cursor.execute(f"DESCRIBE FROM {relation}").fetchall()}
        columns = ", ".join(
            quote(name) if name in stored else f"CAST(NULL AS {kind}) AS {quote(name)}"
            for name, kind in table.columns.items()
        )
        rows = cursor.execute(
            f"SELECT {columns} FROM {relation} WHERE {windows_sql(use_case, whole)}"
        ).to_arrow_table()
    with aside.cursor(use_case.timezone) as cursor:
        cursor.register("copied", rows)
        replace_windows(
            aside, cursor, table, "SELECT * FROM copied",
            time=use_case.sources[source].event_time, calendar=calendar,
            window_range=whole, commit=COMMIT,
        )  # fmt: skip
