"""Feature tables into the online store: the newest rows, as the point-in-time join reads them."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import duckdb
import msgspec
import pyarrow as pa

from ml_platform.features.frame import as_model_input
from ml_platform.features.keys import entity_text, key_sql
from ml_platform.features.online_store import Fresh, OnlineRow, OnlineStore
from ml_platform.features.views import inside_sql, windows_sql
from ml_platform.spec.queries import is_numeric, quote
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Published:
    """What was stored of one feature view."""

    snapshot: int
    rows: Mapping[Window, int]
    """Rows stored by window of the stretch; none for windows older than the store keeps."""
    newest: datetime | None
    """Event time of the newest row that the store holds of the view now."""


def publish(
    lake: Lake, store: OnlineStore, use_case: UseCase, view: str, stretch: Window
) -> Published:
    """Make the online store hold what the lake holds of a stretch of a feature view.

    The store keeps what features of the newest row's window and of the window before it are
    looked up from; older rows of the stretch are not stored, older rows of the view are dropped.
    Raises TableNotFound where the view has no table yet, OnlineStoreError where the store fails.
    """
    calendar = use_case.calendar
    first = calendar.window_at(stretch.start).start
    snapshot, rows = 0, list[OnlineRow]()

    def read(newest: int | None) -> Fresh:
        nonlocal snapshot, rows
        with lake.cursor(use_case.timezone) as cursor:
            snapshot = lake.snapshot(cursor)
            relation = lake.relation(cursor, use_case.name, feature_table(view), snapshot)
            within = f"{relation} WHERE {windows_sql(use_case, stretch)} AND {inside_sql(stretch)}"
            latest = _latest(cursor, within, newest)
            if latest is None:
                rows = []
                return Fresh(rows, None)
            keep_from = _keep_from(use_case, view, latest)
            rows = []
            if keep_from.astimezone(UTC) < stretch.end.astimezone(UTC):
                begin = max(first, keep_from, key=lambda moment: moment.astimezone(UTC))
                rows = _rows(cursor, use_case, view, relation, Window(begin, stretch.end))
        return Fresh(rows, microseconds(keep_from))

    store.replace(use_case.name, view, microseconds(first), microseconds(stretch.end), read)
    counts = Counter(calendar.window_at(moment(row.event_time)) for row in rows)
    newest = store.newest(use_case.name, view)
    return Published(
        snapshot=snapshot,
        rows={window: counts[window] for window in calendar.windows(stretch)},
        newest=None if newest is None else moment(newest),
    )


def publish_views(
    lake: Lake, store: OnlineStore, use_case: UseCase, stretch: Window
) -> dict[str, Published]:
    """Publish all feature views that the model is given; by view, what was stored."""
    return {view: publish(lake, store, use_case, view, stretch) for view in use_case.model_views}


def microseconds(moment: datetime) -> int:
    """Since 1970 in UTC."""
    return (moment.astimezone(UTC) - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    """The moment, in UTC, that many microseconds after the start of 1970."""
    return EPOCH + microseconds * MICROSECOND


def _keep_from(use_case: UseCase, view: str, newest: int) -> datetime:
    # A request is looked up as of its own time, which may be a while ago.
    calendar = use_case.calendar
    window = calendar.window_at(moment(newest))
    before = calendar.window_at(window.start.astimezone(UTC) - MICROSECOND)
    return before.start.astimezone(UTC) - timedelta(seconds=use_case.features[view].ttl.seconds)


def _latest(cursor: duckdb.DuckDBPyConnection, rows: str, newest: int | None) -> int | None:
    found = cursor.execute(f"SELECT max(epoch_us(event_time)) FROM {rows}").fetchall()[0][0]
    return max((time for time in (found, newest) if time is not None), default=None)


def _rows(
    cursor: duckdb.DuckDBPyConnection, use_case: UseCase, view: str, relation: str, stretch: Window
) -> list[OnlineRow]:
    declared = use_case.features[view]
    keys = [f"{key_sql(column)} AS k{number}" for number, column in enumerate(declared.entity)]
    features = [as_model_input(quote(c), kind, c) for c, kind in declared.features.items()]
    items = ", ".join((*keys, "epoch_us(event_time) AS t", *features))
    table = cursor.execute(
        f"SELECT {items} FROM {relation} "
        f"WHERE {windows_sql(use_case, stretch)} AND {inside_sql(stretch)}"
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
