"""Which model versions answer: loaded beside the old one, proved, warmed, then swapped in."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ml_platform.errors import (
    ModelRefused,
    NotLoaded,
    NotServed,
    PlatformError,
    RequestError,
    Unavailable,
)
from ml_platform.registry import (
    ModelVersion,
    Promotion,
    Registry,
    Rollout,
    champion_if_any,
    history,
    predecessors,
    predict,
    rollouts,
    tried_now,
)
from ml_platform.serving.compiled import compiled
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

PROVED_ROWS = 100
"""Rows of the reference sample that a version predicts again before it serves."""
TOLERANCE = 1e-9
"""Relative; linear algebra may round differently for other numbers of rows."""
LOOK_AGAIN_SECONDS = 60.0
"""So often the decisions are read even where the lake has not changed: a promotion can be
effective from a later moment on, and a version that failed is tried again."""
RETRY_SECONDS = 300.0
"""After so long a version that failed is tried again though nothing was decided since."""
UNAVAILABLE_SECONDS = 5.0
"""The same where a server did not answer: MLflow, or the store of its artifacts."""
UNREAD_SECONDS = 1
"""When to ask again while the promotion history has not been read yet."""


@dataclass(frozen=True)
class VersionSwap:
    """A version began to serve or to be tried, or failed to; or there is none to try any more."""

    use_case: str
    version: int
    replaced: int | None
    problem: str | None = None
    """Why it does not serve; the one before continues to serve."""
    tried: bool = False
    """Whether it was to be tried beside the champion, not to replace it."""
    not_compiled: str | None = None
    """Why few rows are predicted by its estimator; empty where they are not."""


@dataclass(frozen=True)
class LoadFailure:
    """A version was to serve and could not."""

    problem: str
    at: float
    """By the monotonic clock."""
    decisions: int
    """How many had been made about the use case by then."""
    is_unavailable: bool = False
    """Whether only a server did not answer."""


@dataclass(frozen=True)
class LiveUseCase:
    """What is served of one use case."""

    use_case: UseCase
    champion: ModelVersion | None = None
    failed: Mapping[int, LoadFailure] = field(default_factory=dict)
    """Versions that were to serve and could not."""
    wanted: int | None = None
    """The version that should serve by the promotion history."""
    rollout: Rollout | None = None
    """How `candidate` is tried; None where nothing is."""
    candidate: ModelVersion | None = None
    """A version that is tried beside the champion."""

    @property
    def classes(self) -> frozenset[str]:
        """What a label can be by the versions that are loaded; none where any text can.

        That is so without a champion, and where labels are no classes with names.
        """
        if self.champion is None or self.use_case.label.task != "multiclass":
            return frozenset()
        candidate = self.candidate.classes if self.candidate else ()
        return frozenset((*self.champion.classes, *candidate))

    @property
    def is_ready(self) -> bool:
        """Whether it is served, or there is nothing to serve."""
        return self.champion is not None or self.wanted is None


class LiveVersions:
    """The versions that serve now. Reading is free of locks; `refresh` is for one thread."""

    def __init__(
        self,
        lake: Lake,
        registry: Registry,
        use_cases: Iterable[UseCase],
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
        elsewhere: Mapping[str, str] | None = None,
    ) -> None:
        self._lake, self._registry = lake, registry
        self._retry_seconds, self._clock = retry_seconds, clock
        self._live = {case.name: LiveUseCase(case) for case in use_cases}
        self._elsewhere = elsewhere or {}
        self._snapshot: int | None = None
        self._looked_at = -LOOK_AGAIN_SECONDS
        self._followed_at: float | None = None
        self._refreshing = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Use cases, served or not."""
        return tuple(self._live)

    @property
    def ready(self) -> bool:
        """Whether at least one use case can be asked."""
        return any(live.champion is not None for live in self._live.values())

    @property
    def waiting(self) -> tuple[str, ...]:
        """Use cases that have a champion that is not served yet; all where none was looked for."""
        if self._snapshot is None:
            return self.names
        return tuple(name for name, live in self._live.items() if not live.is_ready)

    @property
    def followed_seconds_ago(self) -> float | None:
        """How long ago the lake was last seen to say what serves; None where it never was."""
        return None if self._followed_at is None else self._clock() - self._followed_at

    def of(self, name: str) -> LiveUseCase:
        """What is served of a use case; NotServed where there is none of that name."""
        self.require_here(name)
        if name not in self._live:
            known = ", ".join(self._live) or "none"
            raise NotServed(f"no use case '{name[:60]}' is served here; there are: {known}")
        return self._live[name]

    def require_here(self, name: str) -> None:
        """Raise NotServed where a use case is served in another environment than this one."""
        if name in self._elsewhere:
            raise NotServed(
                f"{name} runs in another environment than this service, which cannot load its "
                f"models; `{self._elsewhere[name]}` starts the service that answers for it"
            )

    def model(self, name: str, version: str | None = None) -> ModelVersion:
        """The version that answers.

        Raises NotServed where another one is asked for, or nothing was promoted; NotLoaded where
        that cannot be loaded.
        """
        live = self.of(name)
        if live.champion is None:
            raise self._nothing(live)
        if version is not None and version != str(live.champion.version):
            raise NotServed(
                f"{name} is served by version {live.champion.version}, not '{version[:20]}'"
            )
        return live.champion

    def _nothing(self, live: LiveUseCase) -> RequestError:
        """Why nothing is served of a use case."""
        name = live.use_case.name
        if self._snapshot is None:
            return NotLoaded(f"{name}: the promotion history has not been read yet", UNREAD_SECONDS)
        if live.wanted is None:
            return NotServed(f"{name} has no model that serves yet; train one and have it promoted")
        failure = live.failed.get(live.wanted)
        if failure is None:
            return NotLoaded(f"{name}: version {live.wanted} is being loaded", UNREAD_SECONDS)
        wait = max(1, math.ceil(failure.at + self._wait_seconds(failure) - self._clock()))
        return NotLoaded(
            f"{name}: version {live.wanted} should serve and cannot be loaded: {failure.problem}; "
            f"it is tried again in {wait} s",
            wait,
        )

    def refresh(self) -> list[VersionSwap]:
        """Look at what was decided where the lake has changed; what came of it.

        Raises PlatformError or duckdb.Error where the lake cannot be read; what serves continues to
        serving, and the next call looks again.
        """
        with self._refreshing:
            with self._lake.cursor() as cursor:
                snapshot = self._lake.snapshot(cursor)
            now = self._clock()
            if snapshot == self._snapshot and now < self._looked_at + self._look_again_seconds:
                self._followed_at = now
                return []
            swaps = [swap for name in self._live for swap in self._follow(name)]
            self._snapshot, self._looked_at, self._followed_at = snapshot, now, now
            return swaps

    @property
    def _look_again_seconds(self) -> float:
        wanted = (live.failed.get(live.wanted or 0) for live in self._live.values())
        waits = (self._wait_seconds(failure) for failure in wanted if failure is not None)
        return min(LOOK_AGAIN_SECONDS, self._retry_seconds, *waits)

    def _wait_seconds(self, failure: LoadFailure) -> float:
        """How long after a failure the version is tried again."""
        return min(self._retry_seconds, UNAVAILABLE_SECONDS if failure.is_unavailable else math.inf)

    def _follow(self, name: str) -> list[VersionSwap]:
        case = self._live[name].use_case
        decisions = history(self._lake, case)
        trials = rollouts(self._lake, case, decisions)
        decided = len(decisions) + len(trials)
        swaps = self._follow_champion(name, decisions, decided)
        tried = self._follow_rollout(name, tried_now(trials), decided)
        return swaps if tried is None else [*swaps, tried]

    def _follow_champion(
        self, name: str, decisions: Sequence[Promotion], decided: int
    ) -> list[VersionSwap]:
        live = self._live[name]
        wanted = champion_if_any(decisions, datetime.now(UTC))
        if wanted is None:
            return []
        self._live[name] = live = replace(live, wanted=wanted)
        serving = live.champion.version if live.champion else None
        if wanted == serving or self._is_hopeless(live, wanted, decided):
            return []
        loaded = self._proved(live, wanted, decided)
        if isinstance(loaded, LoadFailure):
            failed = VersionSwap(name, wanted, serving, loaded.problem)
            return [failed, *self._fall_back(name, decisions, decided)]
        live = self._live[name]
        if live.candidate is not None and live.candidate.version == wanted:
            live = replace(live, rollout=None, candidate=None)
        self._live[name] = replace(live, champion=loaded)
        return [_swapped(name, loaded, serving)]

    def _fall_back(
        self, name: str, decisions: Sequence[Promotion], decided: int
    ) -> list[VersionSwap]:
        """Have the latest champion of before serve that can, where none does."""
        if self._live[name].champion is not None:
            return []
        swaps: list[VersionSwap] = []
        for version in predecessors(decisions, datetime.now(UTC)):
            if self._is_hopeless(self._live[name], version, decided):
                continue
            loaded = self._proved(self._live[name], version, decided)
            if not isinstance(loaded, LoadFailure):
                self._live[name] = replace(self._live[name], champion=loaded)
                return [*swaps, _swapped(name, loaded, None)]
            swaps.append(VersionSwap(name, version, None, loaded.problem))
        return swaps

    def _follow_rollout(
        self, name: str, rollout: Rollout | None, decided: int
    ) -> VersionSwap | None:
        live = self._live[name]
        champion = live.champion.version if live.champion else None
        if rollout is None or champion is None or rollout.version in {champion, live.wanted}:
            self._live[name] = replace(live, rollout=None, candidate=None)
            return None
        if live.candidate is not None and live.candidate.version == rollout.version:
            self._live[name] = replace(live, rollout=rollout)
            return None
        if self._is_hopeless(live, rollout.version, decided):
            return None
        self._live[name] = live = replace(live, rollout=None, candidate=None)
        loaded = self._proved(live, rollout.version, decided)
        if isinstance(loaded, LoadFailure):
            return VersionSwap(name, rollout.version, champion, loaded.problem, tried=True)
        self._live[name] = replace(self._live[name], rollout=rollout, candidate=loaded)
        return _swapped(name, loaded, champion, tried=True)

    def _is_hopeless(self, live: LiveUseCase, version: int, decided: int) -> bool:
        failure = live.failed.get(version)
        if failure is None or failure.decisions != decided:
            return False
        return self._clock() < failure.at + self._wait_seconds(failure)

    def _proved(self, live: LiveUseCase, version: int, decided: int) -> ModelVersion | LoadFailure:
        """The version, loaded and warm; where it fails that is kept with the use case."""
        name = live.use_case.name
        if live.candidate is not None and live.candidate.version == version:
            return live.candidate
        try:
            model = self._registry.load(live.use_case, version)
            # Of this thread alone; others would wait for the cores of those that answer.
            with threadpool_limits(limits=1, user_api="openmp"):
                prove(live.use_case, model)
                model = replace(model, few_rows=compiled(model))
        except Exception as error:
            # An artifact, and a use case's own code in it, can fail in any way; none may serve.
            said = str(error) if isinstance(error, PlatformError) else repr(error)
            failure = LoadFailure(said, self._clock(), decided, isinstance(error, Unavailable))
            self._live[name] = replace(live, failed={**live.failed, version: failure})
            return failure
        failed = {v: f for v, f in live.failed.items() if v != version}
        self._live[name] = replace(live, failed=failed)
        return model


def _swapped(
    use_case: str, model: ModelVersion, replaced: int | None, *, tried: bool = False
) -> VersionSwap:
    not_compiled = model.few_rows.problem if model.few_rows else None
    return VersionSwap(use_case, model.version, replaced, tried=tried, not_compiled=not_compiled)


def prove(use_case: UseCase, model: ModelVersion) -> None:
    """Predict the stored reference rows again; it warms the model up as well.

    Raises ModelRefused where the predictions are not those that were stored with it.
    """
    rows = model.reference.head(PROVED_ROWS)
    again = predict(use_case, model, rows)
    for column, kind in use_case.prediction_columns.items():
        if kind.startswith("MAP"):
            continue
        stored, now = rows[column].to_numpy(), again[column].to_numpy()
        if kind == "DOUBLE":
            same = np.isclose(now, stored, rtol=TOLERANCE, atol=0.0)
        else:
            same = now == stored
        if not same.all():
            raise ModelRefused(
                f"{use_case.name} version {model.version}: {int((~same).sum())} of {len(rows)} "
                f"stored reference rows get another '{column}' than when it was trained; it is "
                "not served. Are its libraries the ones it was trained with?"
            )
    # The first single row takes a path of its own through scikit-learn.
    predict(use_case, model, rows.head(1))
