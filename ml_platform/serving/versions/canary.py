"""Which requests a canary answers, and when it has done badly enough to be ended."""

import hashlib
from collections import deque
from collections.abc import Sequence

import numpy as np

from ml_platform.registry import Rollout
from ml_platform.settings import ServingSettings

LAST = 200
"""Requests of each side that are looked at."""
ENOUGH = 50
"""Fewer latencies than these are not compared."""
EVERY = 25
"""Latencies are compared after so many requests."""
SLACK_SECONDS = 0.005
"""A canary may be slower by this whatever the ratio: tiny latencies vary."""


def takes(use_case: str, rollout: Rollout, entity: bytes) -> bool:
    """Whether the canary answers an entity: always the same way, as long as the share is the same.

    A larger share takes further entities, and keeps those that it had.
    """
    place = hashlib.blake2b(f"{use_case}/{rollout.version}/".encode() + entity, digest_size=8)
    return int.from_bytes(place.digest()) / 2**64 < rollout.share


class Watch:
    """How a canary and its champion did lately, in one worker."""

    def __init__(self, settings: ServingSettings) -> None:
        self._settings = settings
        self._failures: deque[bool] = deque(maxlen=LAST)
        self._seconds: dict[bool, deque[float]] = {
            side: deque(maxlen=LAST) for side in (True, False)
        }
        self._answers = 0

    def answered(self, seconds: float, *, by_canary: bool) -> str | None:
        """Note an answer; the reason to end the canary, if there is one."""
        self._seconds[by_canary].append(seconds)
        if not by_canary:
            return None
        self._failures.append(False)
        self._answers += 1
        canary, champion = self._seconds[True], self._seconds[False]
        if self._answers % EVERY or min(len(canary), len(champion)) < ENOUGH:
            return None
        slow, usual = _p95(canary), _p95(champion)
        if slow <= self._settings.canary_slower * usual + SLACK_SECONDS:
            return None
        return (
            f"it is too slow: p95 of its last {len(canary)} requests is {slow * 1000:.0f} ms, the "
            f"champion's is {usual * 1000:.0f} ms"
        )

    def failed(self, error: Exception) -> str | None:
        """Note that the champion had to answer; the reason to end the canary, if there is one."""
        self._failures.append(True)
        count = sum(self._failures)
        if count < self._settings.canary_failures:
            return None
        said = str(error) or type(error).__name__
        return f"it failed at {count} of its last {len(self._failures)} requests: {said}"


def _p95(seconds: Sequence[float]) -> float:
    return float(np.percentile(np.array(seconds), 95))
