"""Waiting for a server that does not answer, as long as the settings allow."""

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ml_platform.errors import Unavailable

T = TypeVar("T")

FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 5.0
MOST_OUTAGES = 3
"""Outages that one call bears, where each comes after as much time as one is waited for."""

LOG = logging.getLogger(__name__)


class Patience:
    """Tries again what failed since a server was unavailable; one for each server of a process.

    The limit counts from the first failure of an outage, whoever noticed it: calls inside of each
    other do not add up, and once it is used up, what needs the server fails at once until an
    attempt succeeds.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None
        self._renewed = 0

    def __call__(self, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it does not raise Unavailable, and return what it returns.

        It is called from its start each time. Raises Unavailable once the limit is used up.
        """
        wait = FIRST_WAIT_SECONDS
        while True:
            began = time.monotonic()
            try:
                result = attempt()
            except Unavailable as error:
                self._check(error, began)
            else:
                self._since, self._renewed = None, 0
                return result
            # Full jitter: all that wait for one server do not come back at one moment.
            time.sleep(random.uniform(wait / 2, wait))
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)

    def _check(self, error: Unavailable, began: float) -> None:
        now = time.monotonic()
        if error.is_final:
            raise error
        # An attempt that lasted this long has found the server in between, or has waited by itself
        # until a connection timed out: which of the two cannot be known.
        lasted = self._since is not None and now - began > self._seconds
        is_new = self._since is None or (lasted and self._renewed < MOST_OUTAGES)
        if is_new:
            self._since = now
            self._renewed += 1
        assert self._since is not None
        if not self._seconds:
            raise error
        if now - self._since >= self._seconds:
            raise type(error)(
                f"{error}; waited {self._seconds:g} s for it", is_final=True
            ) from error
        if self._renewed == 1 and is_new:
            LOG.warning("waiting up to %g s: %s", self._seconds, error)
