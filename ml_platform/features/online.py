"""Features looked up online: by entity and moment, equal to what the point-in-time join yields."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import ExampleRefused, PlatformError
from ml_platform.extras import extra
from ml_platform.features.frame import join_keys
from ml_platform.features.keys import KeyTexts, entity_text
from ml_platform.features.online_sqlite import SqliteStore
from ml_platform.features.online_store import Lookup, LookupResult, OnlineStore
from ml_platform.features.views import entity_types
from ml_platform.settings import Settings
from ml_platform.spec.expiry import Expiry
from ml_platform.spec.inputs import FeatureView
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

REDIS = ("redis://", "rediss://", "unix://")
Outcome: TypeAlias = Literal["found", "expired", "missing"]
"""What a look-up found: a row, only one older than the view's ttl, or none up to that moment."""
EXPIRIES_KEPT = 4096
OUTCOMES: tuple[Outcome, ...] = ("found", "expired", "missing")


def open_online_store(settings: Settings) -> OnlineStore:
    """The store that the settings name.

    Raises PlatformError for a setting that names none, or one whose client is not installed.
    """
    uri = settings.online_store
    if uri is None:
        return SqliteStore(settings.online_folder)
    if not uri.startswith(REDIS):
        # What follows the scheme may hold a password.
        begun = uri.partition(":")[0]
        raise PlatformError(f"setting online_store begins with '{begun}:'; it should be redis://…")
    # The embedded default does without the client.
    with extra():
        from ml_platform.features.online_redis import RedisStore
    return RedisStore(uri, settings)


@dataclass(frozen=True)
class LookedUp:
    """Features of rows, in the order of the rows."""

    columns: dict[str, NDArray[Any]]
    """`<view>__<feature>`: float64 with NaN, text with None."""
    outcomes: dict[str, list[Outcome]]
    """By view. Where it is not `found`, the join has no row either and the features are missing."""


class OnlineFeatures:
    """Looks up the features of one use case; threads may share one.

    A batch is one read of the store, whatever its views; a row asked for twice is read once.
    """

    def __init__(self, store: OnlineStore, use_case: UseCase) -> None:
        self._store = store
        self._use_case = use_case
        self._views = {
            name: _View.of(name, view, use_case.expiry(name))
            for name, view in use_case.model_views.items()
        }
        self._texts = KeyTexts(entity_types(use_case, join_keys(use_case)), use_case.timezone)

    def close(self) -> None:
        """Let go of what reading keys needs; the store stays open."""
        self._texts.close()

    def look_up(self, keys: Mapping[str, Sequence[str | None]], moments: Sequence[int]) -> LookedUp:
        """Features of entities as known at moments.

        keys: texts by key column, each of the length of `moments`, which are event times in
        microseconds since 1970 in UTC; `RequestReader.read` yields both.
        Raises NotPublished for a view that is not in the store, OnlineStoreError where it fails.
        """
        # Dictionaries keep order, so a lookup's place among them is that of its answer.
        asked: dict[str, dict[Lookup, int]] = {}
        places: dict[str, list[int]] = {}
        for name, view in self._views.items():
            lookups = asked[name] = {}
            places[name] = []
            for *parts, moment in zip(*(keys[c] for c in view.entity), moments, strict=True):
                entity = entity_text(parts)
                place = -1
                if entity is not None:
                    place = lookups.setdefault(Lookup(entity, moment), len(lookups))
                places[name].append(place)
        # A store that holds nothing of a use case without views lacks nothing.
        wanted = {name: list(lookups) for name, lookups in asked.items()}
        found = self._store.read(self._use_case.name, wanted) if wanted else {}
        columns: dict[str, NDArray[Any]] = {}
        outcomes: dict[str, list[Outcome]] = {}
        for name, view in self._views.items():
            rows = [
                view.row(answer, lookup.moment)
                for answer, lookup in zip(found[name], asked[name], strict=True)
            ]
            # The last row is that of places without an entity, at -1.
            rows.append(("missing", view.nothing))
            chosen = [rows[place] for place in places[name]]
            outcomes[name] = [outcome for outcome, _ in chosen]
            columns |= view.columns([row for _, row in chosen])
        return LookedUp(columns, outcomes)

    def frame(self, examples: pd.DataFrame) -> pd.DataFrame:
        """Features of examples as `assemble` yields them, with the examples' index.

        examples: the columns that features are joined by, in any form their types are written in,
        and `event_time`, aware. Raises as `look_up` does, ExampleRefused for what is missing.
        """
        missing = [c for c in (*join_keys(self._use_case), "event_time") if c not in examples]
        if missing:
            raise ExampleRefused(missing[0], "is missing; features are joined by it")
        times = pd.DatetimeIndex(examples["event_time"])
        if times.tz is None or times.hasnans:
            raise ExampleRefused("event_time", "should be a time with a zone in every row")
        keys = {
            column: self._texts.of(column, examples[column].tolist())
            for column in join_keys(self._use_case)
        }
        moments = times.as_unit("us").astype("int64").tolist()
        return pd.DataFrame(self.look_up(keys, moments).columns, index=examples.index)


def online_features(store: OnlineStore, use_case: UseCase, examples: pd.DataFrame) -> pd.DataFrame:
    """Features of examples as known in the store, one column `<view>__<feature>` each.

    As `OnlineFeatures.frame`, which is quicker for one batch after another.
    """
    features = OnlineFeatures(store, use_case)
    try:
        return features.frame(examples)
    finally:
        features.close()


@dataclass(frozen=True)
class _View:
    """What answers of one view are turned into columns with."""

    name: str
    entity: tuple[str, ...]
    shortest: int
    """Rows up to this age are fresh; in microseconds, as all times here."""
    longest: int
    """Rows older than this are not."""
    expires: Callable[[int], int]
    """Until when a row of an event time is fresh, where its age does not say."""
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    order: tuple[str, ...]
    nothing: dict[str, Any]
    decoder: msgspec.msgpack.Decoder[dict[str, Any]]

    @classmethod
    def of(cls, name: str, view: FeatureView, expiry: Expiry) -> "_View":
        numbers = tuple(f for f, kind in view.features.items() if is_numeric(kind))
        texts = tuple(f for f in view.features if f not in numbers)
        return cls(
            name=name,
            entity=view.entity,
            shortest=expiry.shortest,
            longest=expiry.longest,
            # Calendar arithmetic takes as long as the rest of a look-up.
            expires=lru_cache(EXPIRIES_KEPT)(expiry.of_microseconds),
            numbers=numbers,
            texts=texts,
            order=tuple(view.features),
            nothing={**dict.fromkeys(numbers, np.nan), **dict.fromkeys(texts)},
            decoder=msgspec.msgpack.Decoder(dict[str, Any]),
        )

    def row(self, answer: LookupResult | None, moment: int) -> tuple[Outcome, dict[str, Any]]:
        """Feature values of an answer, none where it is too old; the comparison of the join."""
        if answer is None:
            return "missing", self.nothing
        event_time, payload = answer
        age = moment - event_time
        if age > self.shortest and (age > self.longest or moment > self.expires(event_time)):
            return "expired", self.nothing
        # A feature that was added after the row was stored has no value, as in the lake.
        return "found", self.nothing | self.decoder.decode(payload)

    def columns(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, NDArray[Any]]:
        found: dict[str, NDArray[Any]] = {}
        if self.numbers:
            pick = itemgetter(*self.numbers)
            matrix = np.array([pick(row) for row in rows], dtype=np.float64)
            found |= zip(
                self.numbers, matrix.reshape(len(rows), len(self.numbers)).T.copy(), strict=True
            )
        for name in self.texts:
            found[name] = np.array([row[name] for row in rows], dtype=object)
        return {f"{self.name}__{feature}": found[feature] for feature in self.order}
