"""Tries again what a server did not answer, and stops asking one that fails again and again."""

import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ml_platform.errors import EndpointUnavailable
from ml_platform.scoring.endpoint.answers import TryAgain
from ml_platform.storage.patience import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS

T = TypeVar("T")

FAILURES = 5
"""Failures in a row, of all threads together, after which one request at a time is sent."""


class Breaker:
    """Calls of several threads to one server.

    Each failed call is repeated after a wait with jitter, and not before the server asks to be
    asked again, which then holds for all threads. After FAILURES failures in a row the breaker is
    open: one thread tries, the others wait until it has succeeded. Once the server has not
    answered any call for `patience_seconds`, every thread gives up.
    """

    def __init__(
        self,
        patience_seconds: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[threading.Condition, float], None] | None = None,
    ) -> None:
        self._patience, self._clock = patience_seconds, clock
        self._wait = wait or _wait
        self._changed = threading.Condition()
        self._failures = 0
        self._since = 0.0
        self._not_before = 0.0
        self._tries: int | None = None
        self._over: EndpointUnavailable | None = None

    @property
    def is_open(self) -> bool:
        """Whether one request at a time is sent."""
        return self._failures >= FAILURES

    def __call__(self, attempt: Callable[[], T]) -> T:
        """What `attempt` returns, once it does not raise TryAgain.

        Raises EndpointUnavailable once patience is used up, or `stop` was called.
        """
        wait = FIRST_WAIT_SECONDS
        while True:
            self._enter()
            began = self._clock()
            try:
                result = attempt()
            except TryAgain as error:
                self._failed(error, began, random.uniform(wait / 2, wait))
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            except BaseException:
                self._answered()
                raise
            else:
                self._answered()
                return result

    def stop(self) -> None:
        """Have every thread that waits give up at once: the batch has failed already."""
        with self._changed:
            self._over = self._over or EndpointUnavailable("given up", is_final=True)
            self._changed.notify_all()

    def _enter(self) -> None:
        me = threading.get_ident()
        with self._changed:
            while True:
                if self._over:
                    raise self._over
                others_try = self.is_open and self._tries not in {None, me}
                left = self._not_before - self._clock()
                if not others_try and left <= 0:
                    break
                self._wait(self._changed, LONGEST_WAIT_SECONDS if others_try else left)
            if self.is_open:
                self._tries = me

    def _answered(self) -> None:
        with self._changed:
            self._failures, self._tries = 0, None
            self._changed.notify_all()

    def _failed(self, error: TryAgain, began: float, pause: float) -> None:
        """Wait until it is worth another try; EndpointUnavailable where it is not any more."""
        with self._changed:
            now = self._clock()
            if not self._failures:
                self._since = began
            self._failures += 1
            asked = error.after_seconds or 0.0
            # Jitter on top of what the server asks for: it does not want all of them at one moment.
            until = now + max(asked, 0.0) + pause
            if until - self._since > self._patience:
                self._give_up(error, asked)
            if asked:
                self._not_before = max(self._not_before, until)
            if self.is_open and self._tries is None:
                self._tries = threading.get_ident()
            while not self._over and (left := until - self._clock()) > 0:
                self._wait(self._changed, left)

    def _give_up(self, error: TryAgain, asked: float) -> None:
        waited = f"waited {self._patience:g} s for it"
        if asked > self._patience:
            waited = f"it asks to wait {asked:g} s, which is more than {self._patience:g} s"
        self._over = self._over or EndpointUnavailable(f"{error.reason}; {waited}", is_final=True)
        self._changed.notify_all()
        raise self._over


def _wait(changed: threading.Condition, seconds: float) -> None:
    changed.wait(seconds)
