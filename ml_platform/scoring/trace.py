"""Where one prediction came from: features, source rows, model, training data, commit."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import duckdb

from ml_platform.errors import EmptyPartition, PlatformError
from ml_platform.features import features_sql, inside_sql, instant, windows_sql
from ml_platform.registry import Registry
from ml_platform.sources.known import KnownVersions
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window, utc
from ml_platform.storage import Lake
from ml_platform.storage.tables import WINDOW_START

Row = dict[str, Any]

MOST_TIMES = 10
"""So many event times are named where one has to be chosen."""


@dataclass(frozen=True)
class SourceRows:
    """Rows of a source that a feature row could be computed from."""

    source: str
    count: int
    origins: tuple[tuple[str, int], ...]
    """File and row of the latest of them."""
    keys: tuple[Mapping[str, str], ...] = ()
    """The key columns of each of these, with their values as text."""


@dataclass(frozen=True)
class FeatureOrigin:
    """The feature row that was joined, None where none was fresh enough, and what it came from."""

    view: str
    row: Row | None
    sources: tuple[SourceRows, ...] = ()


@dataclass(frozen=True)
class PredictionTrace:
    """One prediction and everything that it was made of."""

    prediction: Row
    features: tuple[FeatureOrigin, ...]
    model: Mapping[str, str]
    """What the registry recorded: cutoff, snapshot of the training data, commit, lock digest."""


def trace(
    lake: Lake,
    registry: Registry,
    use_case: UseCase,
    entity: Mapping[str, str],
    *,
    at: datetime | Window | None = None,
    origins: int = 5,
) -> PredictionTrace:
    """Follow a prediction for an entity back to its source rows, by default the latest.

    entity: key column → value, all key columns of the examples. at: its event time, or a window in
    which it is the only one. origins: how many source rows are named for each source.

    Raises EmptyPartition where nothing was predicted for it then, PlatformError where several were.
    """
    with lake.cursor(use_case.timezone) as cursor:
        prediction = find_prediction(cursor, lake, use_case, entity, at)
        example = _example(cursor, lake, use_case, entity, prediction)
        features = tuple(
            _feature(cursor, lake, use_case, view, example, prediction["snapshot"], origins)
            for view in use_case.model_views
        )
    version = int(prediction["model_version"])
    return PredictionTrace(prediction, features, registry.tags(use_case, version))


def find_prediction(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    entity: Mapping[str, str],
    at: datetime | Window | None,
) -> Row:
    """The stored prediction for an entity, by column; entity, at and errors as for `trace`."""
    relation = lake.relation(cursor, use_case.name, "predictions")
    names = use_case.examples.entity
    where = " AND ".join(f"{quote(name)}::VARCHAR = ?" for name in names)
    values = [str(entity[name]) for name in names]
    said = f"{use_case.name}: {', '.join(f'{name}={entity[name]}' for name in names)}"
    then = "true"
    if isinstance(at, Window):
        then = f"{inside_sql(at)} AND {windows_sql(use_case, at)}"
    elif at is not None:
        then = f"event_time = {instant(at)}"
    query = f"SELECT event_time FROM {relation} WHERE {where}"
    latest = f"ORDER BY event_time DESC LIMIT {MOST_TIMES + 1}"
    times = cursor.execute(f"{query} AND {then} {latest}", values).fetchall()
    if not times:
        others = cursor.execute(f"{query} {latest}", values).fetchall()
        but = f" then; it was predicted at {_listed(others)}" if others else ""
        raise EmptyPartition(f"{said} has no prediction{but}")
    if at is not None and len(times) > 1:
        raise PlatformError(f"{said} was predicted at {_listed(times)}; name one of these times")
    row = _first(cursor, f"FROM {relation} WHERE {where} AND event_time = ?", [*values, *times[0]])
    assert row is not None, "it was read just before, at the same snapshot or a later one"
    return {**row, WINDOW_START: row[WINDOW_START].replace(tzinfo=UTC)}


def _listed(times: list[tuple[datetime]]) -> str:
    shown = ", ".join(at.isoformat(" ") for (at,) in reversed(times[:MOST_TIMES]))
    return f"{shown} and earlier" if len(times) > MOST_TIMES else shown


def _example(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    entity: Mapping[str, str],
    prediction: Row,
) -> Row:
    examples = use_case.examples
    event_time = use_case.sources[examples.source].event_time
    then: datetime = prediction["event_time"]
    window = use_case.calendar.window_at(then)
    known = KnownVersions(lake, cursor, use_case, prediction["snapshot"])
    moment = instant(then) if use_case.is_as_known else None
    relation = known.source_sql(examples.source, windows_sql(use_case, window), moment)
    items = ", ".join(("*", *(item for item in examples.columns if " " in item)))
    where = " AND ".join(f"{quote(name)}::VARCHAR = ?" for name in examples.entity)
    row = _first(
        cursor,
        f"SELECT {items} FROM {relation} WHERE {where} AND {quote(event_time)} = ?",
        [*(str(entity[name]) for name in examples.entity), prediction["event_time"]],
    )
    assert row is not None, "a snapshot holds the examples that were scored at it"
    return {**row, "event_time": prediction["event_time"]}


def _feature(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    view: str,
    example: Row,
    snapshot: int,
    origins: int,
) -> FeatureOrigin:
    declared = use_case.features[view]
    zone = use_case.calendar.timezone
    at: datetime = example["event_time"]
    reach = Window(declared.ttl.before(at, zone), use_case.calendar.window_at(at).end)
    near = windows_sql(use_case, reach)
    relation = features_sql(KnownVersions(lake, cursor, use_case, snapshot), view, near, at)
    where = " AND ".join(f"{quote(name)} = ?" for name in declared.entity)
    values = [example[name] for name in declared.entity]
    row = _first(
        cursor,
        f"FROM {relation} WHERE {where} AND {near} AND event_time <= ? ORDER BY event_time DESC",
        [*values, at],
    )
    if row is None or utc(at) > utc(use_case.expiry(view).of(row["event_time"])):
        return FeatureOrigin(view, None)
    seen: datetime = row["event_time"]
    window = use_case.calendar.window_at(seen)
    shown = Window(declared.lookback.before(window.start, zone), window.end)
    rows = tuple(
        _source_rows(
            cursor, lake, use_case, source, shown, seen, at, snapshot,
            {name: example[name] for name in declared.entity}, origins,
        )
        for source in declared.reads
    )  # fmt: skip
    return FeatureOrigin(view, row, rows)


def _source_rows(
    cursor: duckdb.DuckDBPyConnection,
    lake: Lake,
    use_case: UseCase,
    source: str,
    shown: Window,
    known_by: datetime,
    at: datetime,
    snapshot: int,
    entity: Row,
    most: int,
) -> SourceRows:
    declared = use_case.sources[source]
    shared = {name: value for name, value in entity.items() if name in declared.columns}
    near = windows_sql(use_case, shown)
    moment = instant(at) if use_case.is_as_known else None
    relation = KnownVersions(lake, cursor, use_case, snapshot).source_sql(source, near, moment)
    conditions = [
        near,
        inside_sql(shown, declared.event_time),
        f"known_at <= {instant(known_by)}",
        *(f"{quote(name)} = ?" for name in shared),
    ]
    key = ", ".join(f"{quote(name)}::VARCHAR" for name in declared.key)
    rows = cursor.execute(
        f"SELECT _file, _row, count(*) OVER (), {key} FROM {relation} "
        f"WHERE {' AND '.join(conditions)} ORDER BY known_at DESC, _file, _row LIMIT {most:d}",
        list(shared.values()),
    ).fetchall()
    return SourceRows(
        source,
        int(rows[0][2]) if rows else 0,
        tuple((file, number) for file, number, *_ in rows),
        tuple(dict(zip(declared.key, values, strict=True)) for _, _, _, *values in rows),
    )


def _first(cursor: duckdb.DuckDBPyConnection, query: str, values: list[Any]) -> Row | None:
    row = cursor.execute(f"{query} LIMIT 1", values).fetchone()
    if row is None:
        return None
    return dict(zip((column[0] for column in cursor.description), row, strict=True))
