"""Feature tables into the online store: the newest rows, as the point-in-time join reads them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import dropwhile

import duckdb
import msgspec
import pyarrow as pa

from ml_platform.errors import TableNotFound
from ml_platform.features.frame import as_model_input
from ml_platform.features.keys import entity_text, key_sql
from ml_platform.features.online_store import Fresh, OnlineRow, OnlineStore, ViewContents
from ml_platform.features.views import since_sql, windows_sql
from ml_platform.spec.queries import is_numeric, quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, require_calendar
from ml_platform.storage.patience import Patience

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Published:
    """What was stored of one feature view."""

    snapshot: int
    rows: Mapping[Window, int]
    """Rows stored by window: those of the range, and windows before it that were lacking."""
    newest: datetime | None
    """Event time of the newest row that the store holds of the view now."""


def publish(
    lake: Lake, store: OnlineStore, use_case: UseCase, view: str, window_range: Window
) -> Published:
    """Make the online store hold what the lake holds of a range of a feature view.

    The store keeps what features of the newest row's window and of the window before it are
    looked up from; older rows of the range are not stored, older rows of the view are dropped.
    Windows up to the range that are kept and were never stored come along with it, so that a
    store that was empty, or not written to for a while, lacks nothing.
    Raises TableNotFound where the view has no table yet, OnlineStoreError where the store fails.
    """
    calendar = use_case.calendar
    asked = dict.fromkeys(calendar.windows(window_range), 0)
    snapshot, counts = 0, Counter[Window]()

    def read(stored: ViewContents) -> Fresh:
        nonlocal snapshot, counts
        with lake.cursor(use_case.timezone) as cursor:
            require_calendar(cursor, use_case.name, calendar)
            snapshot = lake.snapshot(cursor)
            relation = lake.relation(cursor, use_case.name, feature_table(view), snapshot)
            newest = _newest(cursor, use_case, relation, window_range, stored)
            if newest is None:
                return Fresh(microseconds(window_range.start), [], [_start(w) for w in asked])
            keep_from = _keep_from(use_case, view, newest)
            windows = _windows(use_case, window_range, keep_from, stored)
            rows = _rows(cursor, use_case, view, relation, windows)
        counts = Counter(calendar.window_at(_moment(row.event_time)) for row in rows)
        return Fresh(
            start=_start(windows[0]) if windows else microseconds(window_range.start),
            rows=rows,
            windows=[_start(window) for window in windows],
            keep_from=microseconds(keep_from),
        )

    start, end = microseconds(window_range.start), microseconds(window_range.end)

    def store_it() -> int | None:
        store.replace(use_case.name, view, start, end, read)
        return store.newest(use_case.name, view)

    latest = Patience(lake.settings.server_wait_seconds)(store_it)
    return Published(
        snapshot=snapshot,
        rows={**asked, **counts},
        newest=None if latest is None else _moment(latest),
    )


def publish_views(
    lake: Lake, store: OnlineStore, use_case: UseCase, window_range: Window
) -> dict[str, Published]:
    """Publish all feature views that the model is given; by view, what was stored."""
    return {
        view: publish(lake, store, use_case, view, window_range) for view in use_case.model_views
    }


def unpublished(
    lake: Lake, store: OnlineStore, use_case: UseCase, view: str
) -> tuple[datetime | None, datetime] | None:
    """Newest event times of a view in the store and in the lake, where the lake's is the newer.

    Only windows are read that the store has not got beyond. Raises NotPublished where nothing of
    the view was ever stored, OnlineStoreError where the store fails.
    """
    stored = store.newest(use_case.name, view)
    held = None if stored is None else _moment(stored)
    keyed = " AND ".join(
        f"{quote(column)} IS NOT NULL" for column in use_case.features[view].entity
    )
    with lake.cursor(use_case.timezone) as cursor:
        try:
            relation = lake.relation(cursor, use_case.name, feature_table(view))
        except TableNotFound:
            return None
        since = "true" if held is None else since_sql(use_case, held)
        newest = _latest(cursor, f"{relation} WHERE {since} AND {keyed}")
    if newest is None or (stored is not None and newest <= stored):
        return None
    return held, _moment(newest)


def microseconds(moment: datetime) -> int:
    """Since 1970 in UTC, the form of times in the online store."""
    return (moment.astimezone(UTC) - EPOCH) // MICROSECOND


def _moment(time: int) -> datetime:
    return EPOCH + time * MICROSECOND


def _start(window: Window) -> int:
    return microseconds(window.start)


def _newest(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    relation: str,
    window_range: Window,
    stored: ViewContents,
) -> datetime | None:
    """Event time of the newest row that the view has once the range is stored."""
    found = _latest(cursor, f"{relation} WHERE {windows_sql(use_case, window_range)}")
    if found is None and stored.newest is None:
        # The range is empty, and so is the store: what is before the range was never stored.
        before = Window(use_case.calendar.start, window_range.end)
        found = _latest(cursor, f"{relation} WHERE {windows_sql(use_case, before)}")
    times = [time for time in (found, stored.newest) if time is not None]
    return _moment(max(times)) if times else None


def _latest(cursor: duckdb.DuckDBPyConnection, rows: str) -> int | None:
    (found,) = cursor.execute(f"SELECT max(epoch_us(event_time)) FROM {rows}").fetchall()[0]
    return None if found is None else int(found)


def _keep_from(use_case: UseCase, view: str, newest: datetime) -> datetime:
    """Start of the first window that is kept."""
    # Requests are looked up as of their own time, which may be a while ago.
    calendar = use_case.calendar
    before = calendar.window_at(calendar.window_at(newest).start.astimezone(UTC) - MICROSECOND)
    oldest = use_case.features[view].ttl.before(before.start, calendar.timezone)
    return calendar.window_at(oldest).start


def _windows(
    use_case: UseCase, window_range: Window, keep_from: datetime, stored: ViewContents
) -> list[Window]:
    """Windows to store: from the first one on that is kept, and either asked for or lacking."""
    if keep_from.astimezone(UTC) >= window_range.end.astimezone(UTC):
        return []
    kept = list(use_case.calendar.windows(Window(keep_from, window_range.end)))
    asked = microseconds(window_range.start)
    return list(dropwhile(lambda w: _start(w) < asked and _start(w) in stored.windows, kept))


def _rows(
    cursor: duckdb.DuckDBPyConnection,
    use_case: UseCase,
    view: str,
    relation: str,
    windows: list[Window],
) -> list[OnlineRow]:
    if not windows:
        return []
    declared = use_case.features[view]
    window_range = Window(windows[0].start, windows[-1].end)
    keys = [f"{key_sql(column)} AS k{number}" for number, column in enumerate(declared.entity)]
    features = [as_model_input(quote(c), kind, c) for c, kind in declared.features.items()]
    items = ", ".join((*keys, "epoch_us(event_time) AS t", *features))
    table = cursor.execute(
        f"SELECT {items} FROM {relation} WHERE {windows_sql(use_case, window_range)}"
    ).to_arrow_table()
    return _encoded(table, len(keys), declared.features)


def _encoded(table: pa.Table, keys: int, features: Mapping[str, str]) -> list[OnlineRow]:
    named = [column.to_pylist() for column in table.columns[: keys + 1]]
    values = [
        # A number that is missing becomes the NaN that estimators are given.
        column.to_numpy().tolist() if is_numeric(kind) else column.to_pylist()
        for column, kind in zip(table.columns[keys + 1 :], features.values(), strict=True)
    ]
    encode = msgspec.msgpack.Encoder().encode
    names = tuple(features)
    return [
        OnlineRow(entity, time, encode(dict(zip(names, row, strict=True))))
        for *parts, time, row in zip(*named, zip(*values, strict=True), strict=True)
        if (entity := entity_text(parts)) is not None
    ]
