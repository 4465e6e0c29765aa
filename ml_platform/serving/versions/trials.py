"""A version that is tried beside the champion: canary answers some requests, shadow none."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray
from structlog.typing import FilteringBoundLogger

from ml_platform.alerts.serving import SERVICE
from ml_platform.errors import RolloutRefused, TryLater, Unavailable
from ml_platform.registry import Rollout, decide_rollout
from ml_platform.serving.metrics import Metrics
from ml_platform.serving.versions.canary import Watch, takes
from ml_platform.serving.versions.comparison import Pair, Tally, append_tally, numbers_of
from ml_platform.serving.versions.live import LiveUseCase, LiveVersions
from ml_platform.settings import ServingSettings
from ml_platform.storage import Commit, Lake

PAUSE_SECONDS = 0.005
"""An answer is on its way before its shadow is begun; also how long a shadow makes way."""
TOGETHER = 32
"""Shadows that are begun at once."""
NO_FAULT = (TryLater, Unavailable)
"""Errors that say nothing of the version that was asked: the worker has too much to do, or a store
that all versions read does not answer."""


class ComparablePredictions(Protocol):
    """What is needed of an answer to compare it."""

    @property
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Prediction columns."""

    @property
    def rows(self) -> int:
        """How many were predicted."""


A = TypeVar("A", bound=ComparablePredictions)
Ask = Callable[[], Awaitable[A]]
Heard = Callable[[A, A | Exception], None]


@dataclass(frozen=True)
class _Shadow(Generic[A]):
    pair: Pair
    answer: A
    ask: Ask[A]


class Trials(Generic[A]):
    """Canaries and shadows of one worker; lives in its event loop."""

    def __init__(
        self,
        settings: ServingSettings,
        metrics: Metrics,
        log: FilteringBoundLogger,
        is_busy: Callable[[], bool],
    ) -> None:
        self._settings, self._metrics, self._log = settings, metrics, log
        self._is_busy = is_busy
        self._watches: dict[tuple[str, Rollout], Watch] = {}
        self._ended: dict[tuple[str, Rollout], Rollout | None] = {}
        self._tallies: dict[Pair, Tally] = {}
        self._shadows: deque[_Shadow[A]] = deque()
        self._shadow_rows = 0
        self._shadowing: asyncio.Task[None] | None = None
        self.heard: list[Heard[A]] = []
        """Called with a champion's answer and what the shadow said of the same rows."""

    def is_tried(self, live: LiveUseCase) -> bool:
        """Whether a version is tried, and was not ended here."""
        return (
            live.candidate is not None
            and live.rollout is not None
            and (live.use_case.name, live.rollout) not in self._ended
        )

    async def answer(
        self, live: LiveUseCase, entity: Callable[[], bytes], champion: Ask[A], candidate: Ask[A]
    ) -> A:
        """The champion's answer, or that of a canary whose share the entity is in.

        A canary that fails, or is too slow, is not waited for: the champion answers. What both
        refuse is the caller's mistake, and not counted. Nor is a load under which the champion is
        too slow as well. Raises what the champion raises.
        """
        rollout, pair = live.rollout, _pair(live)
        assert rollout is not None
        error: Exception | None = None
        if rollout.mode == "canary" and takes(pair.use_case, rollout, entity()):
            started = time.perf_counter()
            try:
                async with asyncio.timeout(self._settings.canary_seconds):
                    answer = await candidate()
            except TimeoutError:
                error = TimeoutError(f"no answer in {self._settings.canary_seconds:g} s")
            except Exception as failure:
                # Whatever is wrong with a version on trial, callers get an answer.
                error = failure
            else:
                self._canary_answered(pair, rollout, answer, time.perf_counter() - started)
                return answer
        started = time.perf_counter()
        answer = await champion()
        seconds = time.perf_counter() - started
        if error is not None:
            self._canary_failed(pair, rollout, error, seconds)
        self._tally(pair).answered("champion", seconds, numbers_of(answer.columns))
        if rollout.mode == "canary":
            self._watch(pair, rollout).answered(seconds, by_canary=False)
        else:
            self._offer(_Shadow(pair, answer, candidate))
        return answer

    async def keep(self, lake: Lake, live: LiveVersions, worker: str, every_seconds: float) -> None:
        """Bring what was seen, and what was ended, to the lake again and again."""
        while True:
            await asyncio.sleep(every_seconds)
            await self.write(lake, live, worker)

    async def write(self, lake: Lake, live: LiveVersions, worker: str) -> None:
        """Bring it to the lake once; what cannot be written is kept for the next time."""
        taken, self._tallies = self._tallies, {}
        for pair, tally in taken.items():
            case = live.of(pair.use_case).use_case
            commit = Commit("serve", case.code_version, f"{case.name}/rollout_comparisons")
            try:
                await asyncio.to_thread(append_tally, lake, case, pair, tally, worker, commit)
            except Exception as error:
                # The lake can be unavailable in any way; sums wait without growing.
                self._log.error("comparison_not_written", problem=str(error))
                self._tally(pair).figures.update(tally.figures)
        for (name, rollout), end in list(self._ended.items()):
            case = live.of(name).use_case
            commit = Commit("serve", case.code_version, f"{name}/rollouts")
            if end is None:
                continue
            try:
                await asyncio.to_thread(decide_rollout, lake, case, end, commit)
            except RolloutRefused:
                # Another worker, or a person, ended it first.
                pass
            except Exception as error:
                # As above.
                self._log.error("end_not_written", problem=str(error))
                continue
            self._ended[name, rollout] = None

    def close(self) -> None:
        """Leave out the shadows that have not begun."""
        self._shadows.clear()
        if self._shadowing is not None:
            self._shadowing.cancel()

    def _canary_answered(self, pair: Pair, rollout: Rollout, answer: A, seconds: float) -> None:
        self._metrics.tried.labels(pair.use_case, "canary", "answered").inc()
        self._tally(pair).answered("candidate", seconds, numbers_of(answer.columns))
        self._end(pair, rollout, self._watch(pair, rollout).answered(seconds, by_canary=True))

    def _canary_failed(
        self, pair: Pair, rollout: Rollout, error: Exception, champion_seconds: float
    ) -> None:
        alike = isinstance(error, TimeoutError) and champion_seconds > self._settings.canary_seconds
        if alike or isinstance(error, NO_FAULT):
            self._drop(pair)
            return
        self._metrics.tried.labels(pair.use_case, "canary", "failed").inc()
        self._tally(pair).failed()
        self._log.warning(
            "canary_failed", use_case=pair.use_case, version=pair.candidate, problem=str(error)
        )
        self._end(pair, rollout, self._watch(pair, rollout).failed(error))

    def _end(self, pair: Pair, rollout: Rollout, reason: str | None) -> None:
        key = pair.use_case, rollout
        if reason is None or key in self._ended:
            return
        self._log.error(
            "canary_ended", use_case=pair.use_case, version=pair.candidate, reason=reason
        )
        self._ended[key] = Rollout(
            rollout.version, "ended", 0.0, SERVICE, reason, datetime.now(UTC)
        )
        self._watches.pop(key, None)

    def _offer(self, shadow: _Shadow[A]) -> None:
        rows = shadow.answer.rows
        if self._shadow_rows + rows > self._settings.shadow_rows:
            self._drop(shadow.pair)
            return
        self._shadows.append(shadow)
        self._shadow_rows += rows
        if self._shadowing is None:
            self._shadowing = asyncio.create_task(self._shadow_all())

    def _drop(self, pair: Pair) -> None:
        self._metrics.tried.labels(pair.use_case, pair.mode, "dropped").inc()
        self._tally(pair).dropped()

    async def _shadow_all(self) -> None:
        try:
            while self._shadows:
                await asyncio.sleep(PAUSE_SECONDS)
                # Under load all rows that may wait do, and further ones are left out.
                if self._is_busy():
                    continue
                count = min(TOGETHER, len(self._shadows))
                begun = [self._shadows.popleft() for _ in range(count)]
                await asyncio.gather(*(self._shadow(each) for each in begun))
                self._shadow_rows -= sum(each.answer.rows for each in begun)
        finally:
            self._shadowing = None

    async def _shadow(self, shadow: _Shadow[A]) -> None:
        name = shadow.pair.use_case
        started = time.perf_counter()
        said: A | Exception
        try:
            said = await shadow.ask()
        except NO_FAULT:
            self._drop(shadow.pair)
            return
        except Exception as error:
            # A shadow may fail in any way and nobody notices but those who compare.
            said = error
            self._metrics.tried.labels(name, "shadow", "failed").inc()
            self._tally(shadow.pair).failed()
        else:
            self._metrics.tried.labels(name, "shadow", "answered").inc()
            tally = self._tally(shadow.pair)
            predicted = numbers_of(said.columns)
            tally.answered("candidate", time.perf_counter() - started, predicted)
            tally.paired(numbers_of(shadow.answer.columns), predicted)
        for hear in self.heard:
            hear(shadow.answer, said)

    def _tally(self, pair: Pair) -> Tally:
        return self._tallies.setdefault(pair, Tally())

    def _watch(self, pair: Pair, rollout: Rollout) -> Watch:
        return self._watches.setdefault((pair.use_case, rollout), Watch(self._settings))


def _pair(live: LiveUseCase) -> Pair:
    assert live.champion is not None
    assert live.candidate is not None
    assert live.rollout is not None
    return Pair(
        live.use_case.name, live.champion.version, live.candidate.version, live.rollout.mode
    )
