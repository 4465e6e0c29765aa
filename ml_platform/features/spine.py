"""Rows of somebody's own, joined point-in-time with feature views."""

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from ml_platform.errors import ExampleRefused, FeatureError
from ml_platform.features.frame import join_keys, spine_sql
from ml_platform.features.requests import needed_columns, request_columns
from ml_platform.features.views import entity_types
from ml_platform.spec.queries import quote
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest, unknown
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

EVENT_TIME = "event_time"
PLACE = "place in the spine"
JUST_AFTER = timedelta(microseconds=1)


def join_spine(
    lake: Lake,
    use_case: UseCase,
    spine: pd.DataFrame,
    *,
    at: datetime | None = None,
    views: Collection[str] | None = None,
) -> pd.DataFrame:
    """A frame's rows with the features that were known when each of them happened.

    spine: n rows with `event_time`, also under the name that it has in the source of examples, and
    the keys of the views. Values are read as in requests, times without a zone in that of the use
    case.
    at: join what was known at this moment instead: no row of a later event time, and of those that
    were corrected the version of then. views: by default those that the model is given.

    Returns the spine's rows in their order, with their index and columns; then request columns,
    where the spine has all that they are computed from; then features, by `<view>__<feature>`.
    Both are as estimators are given them: numbers as float64 with NaN, all else as text with None.
    Raises FeatureError where columns are missing, ExampleRefused and RuleBroken for values that a
    request could not have, TableNotFound where a view was never computed.
    """
    _require_frame(use_case, spine)
    if at is not None and not use_case.is_as_known:
        raise FeatureError(
            f"{use_case.name} declares values: as_revised, so what was known at a moment is not "
            "kept; leave out `at`"
        )
    case = _with_views(use_case, views)
    keyed = _keyed(case)
    given = spine.rename(columns={EVENT_TIME: _event_time(case)})
    _require_columns(keyed, spine, given)
    parts = [_read(keyed, given).assign(**{PLACE: np.arange(len(given))})]
    bare = _narrowed(case, case.examples.columns, case.examples.request)
    if case.examples.request and needed_columns(bare).keys() <= {*given.columns}:
        parts.append(_read(bare, given)[list(case.examples.request)])
    keys, *found = parts
    if case.model_views:
        found.append(_features(lake, case, keys, at).set_axis(spine.index))
    replaced = {column for part in found for column in part.columns}
    return pd.concat([spine[[c for c in spine.columns if c not in replaced]], *found], axis=1)


def _features(
    lake: Lake, use_case: UseCase, keys: pd.DataFrame, at: datetime | None
) -> pd.DataFrame:
    types = entity_types(use_case, join_keys(use_case))
    # A column without any value would have no type.
    typed = [f"CAST({quote(c)} AS {kind}) AS {quote(c)}" for c, kind in types.items()]
    selected = ", ".join((EVENT_TIME, quote(PLACE), *typed))
    with lake.cursor(use_case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        cursor.register("spine", keys)
        try:
            sql = spine_sql(
                cursor, lake, use_case, f"SELECT {selected} FROM spine", _covered(use_case, keys),
                snapshot, mark=quote(PLACE), at=at,
            )  # fmt: skip
            return _fetched(cursor, sql)
        finally:
            cursor.unregister("spine")


def _fetched(cursor: duckdb.DuckDBPyConnection, sql: str) -> pd.DataFrame:
    frame: pd.DataFrame = cursor.execute(sql).to_arrow_table().to_pandas()
    return frame


def _covered(use_case: UseCase, keys: pd.DataFrame) -> Window:
    start = use_case.calendar.start
    if not len(keys):
        return Window(start, start + JUST_AFTER)
    times = keys[EVENT_TIME]
    zone = use_case.calendar.timezone
    first, last = (moment.to_pydatetime().astimezone(zone) for moment in (times.min(), times.max()))
    return Window(first, last + JUST_AFTER)


def _with_views(use_case: UseCase, views: Collection[str] | None) -> UseCase:
    if views is None:
        return use_case
    names = (views,) if isinstance(views, str) else tuple(views)
    for name in names:
        if name not in use_case.features:
            known = unknown("feature view", str(name), use_case.features)
            raise FeatureError(f"{use_case.name} has {known}")
    chosen = use_case.model.model_copy(update={"features": names})
    return use_case.model_copy(update={"model": chosen})


def _keyed(use_case: UseCase) -> UseCase:
    """The use case whose examples are nothing but the keys of its views."""
    declared = use_case.examples
    if any(key in declared.request and key not in declared.columns for key in join_keys(use_case)):
        # What an expression makes of a row is a key: the examples' SQL yields it.
        return _narrowed(use_case, declared.columns, declared.request)
    return _narrowed(use_case, (), {})


def _narrowed(use_case: UseCase, columns: Sequence[str], request: dict[str, str]) -> UseCase:
    update: dict[str, Any] = {"entity": (), "columns": tuple(columns), "request": request}
    return use_case.model_copy(update={"examples": use_case.examples.model_copy(update=update)})


def _event_time(use_case: UseCase) -> str:
    return use_case.sources[use_case.examples.source].event_time


def _require_frame(use_case: UseCase, spine: object) -> None:
    if not isinstance(spine, pd.DataFrame):
        keys = ", ".join((EVENT_TIME, *join_keys(use_case)))
        raise FeatureError(
            f"{use_case.name}: a spine is a pandas DataFrame with {keys}, "
            f"not a {type(spine).__name__}"
        )
    twice = spine.columns[spine.columns.duplicated()]
    if len(twice):
        raise FeatureError(f"{use_case.name}: the spine has two columns called '{twice[0]}'")


def _require_columns(keyed: UseCase, spine: pd.DataFrame, given: pd.DataFrame) -> None:
    missing = [column for column in needed_columns(keyed) if column not in given]
    if not missing:
        return
    named = [EVENT_TIME if column == _event_time(keyed) else column for column in missing]
    needed = [f"{name} by {', '.join(each.entity)}" for name, each in keyed.model_views.items()]
    hints = dict.fromkeys(hint for name in named if "Did" in (hint := suggest(name, spine.columns)))
    raise FeatureError(
        f"{keyed.name}: the spine lacks {', '.join(named)}; features are joined by {EVENT_TIME} "
        f"and the keys of their views ({'; '.join(needed)}), `views` names fewer{''.join(hints)}"
    )


def _read(use_case: UseCase, given: pd.DataFrame) -> pd.DataFrame:
    try:
        return request_columns(use_case, given)
    except ExampleRefused as error:
        if error.column != _event_time(use_case):
            raise
        raise ExampleRefused(EVENT_TIME, error.problem) from None
