"""Which model versions answer: loaded beside the old one, proved, warmed, then swapped in."""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from ml_platform.errors import ModelRefused, NoChampion, NotServed, PlatformError
from ml_platform.registry import ModelVersion, Registry, champion_at, history, predict
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

PROVED_ROWS = 100
"""Rows of the reference sample that a version predicts again before it serves."""
TOLERANCE = 1e-9
"""Relative; linear algebra may round differently for other numbers of rows."""


@dataclass(frozen=True)
class Swap:
    """A version began to serve, or failed to."""

    use_case: str
    version: int
    replaced: int | None
    problem: str | None = None
    """Why it does not serve; the one before goes on."""


@dataclass(frozen=True)
class Live:
    """What is served of one use case."""

    use_case: UseCase
    champion: ModelVersion | None = None
    failed: Mapping[int, str] = field(default_factory=dict)
    """Versions that were to serve and could not."""


class LiveVersions:
    """The versions that serve now. Reading is free of locks; `refresh` is for one thread."""

    def __init__(self, lake: Lake, registry: Registry, use_cases: Iterable[UseCase]) -> None:
        self._lake, self._registry = lake, registry
        self._live = {case.name: Live(case) for case in use_cases}
        self._snapshot: int | None = None
        self._refreshing = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Use cases, served or not."""
        return tuple(self._live)

    @property
    def ready(self) -> bool:
        """Whether at least one use case can be asked."""
        return any(live.champion is not None for live in self._live.values())

    def of(self, name: str) -> Live:
        """What is served of a use case; NotServed where there is none of that name."""
        if name not in self._live:
            known = ", ".join(self._live) or "none"
            raise NotServed(f"no use case '{name[:60]}' is served here; there are: {known}")
        return self._live[name]

    def model(self, name: str, version: str | None = None) -> ModelVersion:
        """The version that answers; NotServed where another one is asked for, or none serves."""
        live = self.of(name)
        if live.champion is None:
            raise NotServed(f"{name} has no model that serves yet; train one and have it promoted")
        if version is not None and version != str(live.champion.version):
            raise NotServed(
                f"{name} is served by version {live.champion.version}, not '{version[:20]}'"
            )
        return live.champion

    def refresh(self) -> list[Swap]:
        """Look at the promotion history where the lake has changed; what came of it.

        Raises PlatformError where the lake cannot be read; what serves goes on serving.
        """
        with self._refreshing:
            with self._lake.cursor() as cursor:
                snapshot = self._lake.snapshot(cursor)
            if snapshot == self._snapshot:
                return []
            swaps = [swap for live in list(self._live.values()) if (swap := self._follow(live))]
            self._snapshot = snapshot
            return swaps

    def _follow(self, live: Live) -> Swap | None:
        name = live.use_case.name
        try:
            wanted = champion_at(history(self._lake, live.use_case), datetime.now(UTC))
        except NoChampion:
            return None
        serving = live.champion.version if live.champion else None
        if wanted == serving or wanted in live.failed:
            return None
        try:
            model = self._registry.load(live.use_case, wanted)
            prove(live.use_case, model)
        except PlatformError as error:
            failed = {**live.failed, wanted: str(error)}
            self._live[name] = Live(live.use_case, live.champion, failed)
            return Swap(name, wanted, serving, str(error))
        self._live[name] = Live(live.use_case, model, live.failed)
        return Swap(name, wanted, serving)


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
