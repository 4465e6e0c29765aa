"""The online store in Redis: one sorted set an entity, scored by event time."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import redis
from redis.client import Pipeline

from ml_platform.errors import OnlineStoreError, OnlineStoreUnavailable
from ml_platform.failures import failure_of, is_refused
from ml_platform.features.online_store import (
    Fresh,
    Lookup,
    LookupResult,
    OnlineRow,
    ViewContents,
    not_published,
)
from ml_platform.settings import Settings
from ml_platform.storage.schema_versions import Stamp, require_not_newer

T = TypeVar("T")

GONE = (redis.ConnectionError, redis.TimeoutError)

ROWS_A_COMMAND = 1000
TIME_BYTES = 8
# Names of use cases are followed by a colon.
STAMP = "ml-platform:schema_version"

# In one script, a batch costs one round trip and sees one state of the store.
LATEST = """
local found = {}
for i, key in ipairs(KEYS) do
  if ARGV[i] == '' then
    found[i] = redis.call('EXISTS', key)
  else
    found[i] = redis.call('ZREVRANGEBYSCORE', key, ARGV[i], '-inf', 'LIMIT', 0, 1)[1] or false
  end
end
return found
"""


class RedisStore:
    """Features in one Redis server; not in a Redis Cluster, whose nodes have no common state.

    Of a view there are a sorted set for each entity, one of all its rows (by which ranges are
    replaced and dropped), and one of the windows that were stored. A score holds microseconds
    exactly up to the year 2255.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._settings = settings
        self._client = redis.Redis.from_url(url)
        self._latest = self._client.register_script(LATEST)
        self._is_known = False

    def replace(
        self, use_case: str, view: str, start: int, end: int, read: Callable[[ViewContents], Fresh]
    ) -> None:
        all_rows, windows = _key(use_case, view, "rows"), _key(use_case, view, "windows")

        def work(pipeline: Pipeline) -> None:
            newest = _newest_outside(pipeline, all_rows, start, end)
            stored = frozenset(map(int, _members(pipeline.zrange(windows, 0, -1))))
            fresh = read(ViewContents(newest, stored))
            ranges: list[tuple[int | str, str]] = [(fresh.start, f"({end}")]
            if fresh.keep_from is not None:
                ranges.append(("-inf", f"({fresh.keep_from}"))
            gone = [m for r in ranges for m in _members(pipeline.zrangebyscore(all_rows, *r))]
            keys = [_entity_key(use_case, view, entity) for entity in set(map(_entity_of, gone))]
            pipeline.multi()
            pipeline.set(STAMP, Stamp.of("online store").text)
            for key in (all_rows, *keys):
                for first, last in ranges:
                    pipeline.zremrangebyscore(key, first, last)
            if fresh.windows:
                pipeline.zadd(windows, {str(window): window for window in fresh.windows})
            if fresh.keep_from is not None:
                pipeline.zremrangebyscore(windows, "-inf", f"({fresh.keep_from}")
            _add(pipeline, use_case, view, fresh.rows)

        # Watching the rows, a writer whose range another one changed meanwhile reads again.
        with self._named_errors():
            self._require_known()
            self._client.transaction(work, all_rows)

    def forget(
        self,
        use_case: str,
        view: str,
        meant: Callable[[Sequence[str]], Collection[str]],
        *,
        dry_run: bool = False,
    ) -> int:
        all_rows = _key(use_case, view, "rows")
        counts = []

        def work(pipeline: Pipeline) -> None:
            members: dict[str, list[bytes]] = defaultdict(list)
            for member in _members(pipeline.zrange(all_rows, 0, -1)):
                members[_entity_of(member)].append(member)
            chosen = meant(list(members))
            counts.append(len(chosen))
            pipeline.multi()
            if not dry_run:
                for entity in chosen:
                    pipeline.delete(_entity_key(use_case, view, entity))
                    for some in _chunks(members[entity]):
                        pipeline.zrem(all_rows, *some)

        with self._named_errors():
            self._require(use_case, view)
            self._client.transaction(work, all_rows)
        return counts[-1]

    def read(
        self, use_case: str, wanted: Mapping[str, Sequence[Lookup]]
    ) -> dict[str, list[LookupResult | None]]:
        keys = [_key(use_case, view, "windows") for view in wanted]
        moments: list[int | str] = [""] * len(wanted)
        for view, lookups in wanted.items():
            prefix = _key(use_case, view, "entity:")
            keys += [prefix + entity for entity, _ in lookups]
            moments += [moment for _, moment in lookups]
        with self._named_errors():
            self._require_known()
            answers = iter(self._latest(keys, moments))
        for view in wanted:
            if not next(answers):
                raise not_published(use_case, view)
        return {
            view: [
                None if member is None else LookupResult(_time_of(member), member[TIME_BYTES:])
                for member in islice(answers, len(lookups))
            ]
            for view, lookups in wanted.items()
        }

    def newest(self, use_case: str, view: str) -> int | None:
        with self._named_errors():
            self._require(use_case, view)
            last = _members(self._client.zrevrange(_key(use_case, view, "rows"), 0, 0))
        return _time_of(last[0]) if last else None

    def count(self, use_case: str, view: str) -> int:
        with self._named_errors():
            self._require(use_case, view)
            return int(self._client.zcard(_key(use_case, view, "rows")))

    def close(self) -> None:
        self._client.close()

    def _require_known(self) -> None:
        """Raise NewerRelease where a newer release wrote what is stored; looked at once."""
        if not self._is_known:
            said: Any = self._client.get(STAMP)
            if said is not None:
                require_not_newer("online store", Stamp.read(said.decode()), "in Redis")
            self._is_known = True

    def _require(self, use_case: str, view: str) -> None:
        self._require_known()
        if not self._client.exists(_key(use_case, view, "windows")):
            raise not_published(use_case, view)

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            # Where it is, without the password that its URL may hold.
            where = self._client.connection_pool.connection_kwargs
            named = where.get("path") or f"{where.get('host')}:{where.get('port', 6379)}"
            failure = failure_of(error, self._settings)
            is_gone = isinstance(error, GONE) and not is_refused(error)
            is_gone = is_gone or failure.kind == "unavailable"
            of_kind = OnlineStoreUnavailable if is_gone else OnlineStoreError
            raise of_kind(f"the online store at {named}: {failure}") from None


def _key(use_case: str, view: str, what: str) -> str:
    # Names hold no colon, so what follows can be any text.
    return f"ml-platform:{use_case}:{view}:{what}"


def _entity_key(use_case: str, view: str, entity: str) -> str:
    return _key(use_case, view, f"entity:{entity}")


def _newest_outside(pipeline: Pipeline, key: str, start: int, end: int) -> int | None:
    for most, least in ("+inf", end), (f"({start}", "-inf"):
        if found := _members(pipeline.zrevrangebyscore(key, most, least, start=0, num=1)):
            return _time_of(found[0])
    return None


def _add(pipeline: Pipeline, use_case: str, view: str, rows: Sequence[OnlineRow]) -> None:
    entities: dict[str, dict[bytes, int]] = defaultdict(dict)
    for row in rows:
        # With its time in front, a row stays apart from others of the same values.
        entities[row.entity][_packed(row.event_time) + row.payload] = row.event_time
    for entity, members in entities.items():
        for some in _chunks(members.items()):
            pipeline.zadd(_entity_key(use_case, view, entity), dict(some))
    index = ((_packed(row.event_time) + row.entity.encode(), row.event_time) for row in rows)
    for pairs in _chunks(index):
        pipeline.zadd(_key(use_case, view, "rows"), dict(pairs))


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while some := list(islice(remaining, ROWS_A_COMMAND)):
        yield some


def _members(reply: Any) -> list[bytes]:
    # The client's types leave open whether it decodes replies and gives scores; here, neither.
    return list(reply)


def _packed(time: int) -> bytes:
    return time.to_bytes(TIME_BYTES, "big", signed=True)


def _time_of(member: bytes) -> int:
    return int.from_bytes(member[:TIME_BYTES], "big", signed=True)


def _entity_of(member: bytes) -> str:
    return member[TIME_BYTES:].decode()
