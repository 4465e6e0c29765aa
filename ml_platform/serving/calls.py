"""Who asked, by which protocol, since when; and what the predictions are called."""

import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog

from ml_platform.access import Ownership
from ml_platform.errors import RequestRefused
from ml_platform.serving.admission import CALLER, UNASKED
from ml_platform.serving.tracing import TRACE, RequestTrace

SOUND = re.compile(r"[!-~]{1,128}")
"""An id of a caller that is taken: it is repeated in headers, in the log and in records."""
PREDICTION_ID = re.compile(
    r"(?P<begun>[0-9a-f]{14}-[0-9a-f]{10})(?:-(?P<mark>[0-9a-f]{16}))?"
    r"-(?P<moment>[0-9a-f]{16})-[0-9]{1,9}"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WORD = 1 << 64


@dataclass(frozen=True)
class Call:
    """One request, as the log records it."""

    protocol: str
    request_id: str
    caller: str | None
    started: float
    """By the clock of `time.perf_counter`, in seconds."""
    trace: RequestTrace | None = None
    """Where it is traced."""
    principal: str | None = None
    """Which caller, as `Caller.principal` says; None where nobody has to say who they are."""

    @classmethod
    def begin(cls, protocol: str) -> "Call":
        """A request that has just come, under the id that its lines of the log have."""
        request_id = structlog.contextvars.get_contextvars().get("request_id") or sound_id(None)
        caller = CALLER.get()
        name = None if caller is UNASKED else caller.name
        principal = caller.principal if caller.is_proved else None
        return cls(protocol, request_id, name, time.perf_counter(), TRACE.get(), principal or None)

    @property
    def milliseconds(self) -> float:
        """How long ago it came."""
        return (time.perf_counter() - self.started) * 1000


def sound_id(given: str | None) -> str:
    """The id of a request: what the caller says where that is usable, or else a new one.

    >>> sound_id("order-7"), len(sound_id("two words"))
    ('order-7', 32)
    """
    return given if given is not None and SOUND.fullmatch(given) else secrets.token_hex(16)


class PredictionIds:
    """Names predictions, each once, in the order of time; threads may share one.

    An id says when the request was answered, by which worker, to whom, the row's event time, and
    which row of the request it is. So whoever sends feedback by id need not know the event time,
    and a caller proves by the id that a prediction was answered to them: a mark in it, the same
    for all rows of a request, is theirs alone. Where nobody has to say who they are there is none.
    """

    def __init__(self, ownership: Ownership) -> None:
        self._ownership = ownership
        self._worker = secrets.token_hex(5)
        self._last = 0
        self._lock = threading.Lock()

    def name(self, moments: Sequence[int], use_case: str, principal: str | None) -> list[str]:
        """An id for each row of a request; moments: event times in microseconds since 1970."""
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            begun = f"{self._last:014x}-{self._worker}"
        if principal is not None:
            mark = self._ownership.mark(principal, f"{use_case}/{begun}")
            begun = begun if mark is None else f"{begun}-{mark}"
        return [f"{begun}-{moment % WORD:016x}-{row}" for row, moment in enumerate(moments)]

    def is_of(self, prediction_id: str, use_case: str, principal: str) -> bool:
        """Whether the request that an id names was answered to a caller."""
        match = PREDICTION_ID.fullmatch(prediction_id)
        if match is None or match["mark"] is None:
            return False
        return self._ownership.owns(principal, f"{use_case}/{match['begun']}", match["mark"])


def moment_of(prediction_id: str) -> int:
    """The event time of the row that an id names, in microseconds since 1970 in UTC.

    Raises RequestRefused where it is no id of ours.
    """
    match = PREDICTION_ID.fullmatch(prediction_id)
    if match is None:
        problem = f"'{prediction_id[:60]}' is not what predictions are called here"
        raise RequestRefused(problem, "prediction_id")
    moment = int(match["moment"], 16)
    return moment - WORD if moment >> 63 else moment


def event_time_of(prediction_id: str) -> datetime:
    """As `moment_of`, as a time.

    >>> event_time_of("000601fcbba0d8-0123456789-000612981d875000-3").isoformat()
    '2024-03-01T12:00:00+00:00'
    """
    try:
        return EPOCH + timedelta(microseconds=moment_of(prediction_id))
    except OverflowError:
        problem = f"'{prediction_id[:60]}' is of no time that a calendar has"
        raise RequestRefused(problem, "prediction_id") from None
