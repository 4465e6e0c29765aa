"""A request that comes again under the same key gets the same answer, and nothing is done twice.

Two things hold that together:

- Whoever looks for a key's answer, does the action and stores the answer is alone with the key
  meanwhile, among all workers that share the answers. A worker that dies holds nobody up.
- What is done bears the key itself: runs as tags, decisions in their commit. So it is found again
  where a worker died between doing and storing, or answers are not shared.
"""

import hashlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from ml_platform.access import Caller
from ml_platform.errors import KeyReused
from ml_platform.serving.control.answers import AnswerStore, StoredAnswer
from ml_platform.spec.use_case import UseCase

REUSED = "this Idempotency-Key came with other parameters before; send a new key for something else"
REQUEST_NAME = "ml_platform/request"
"""Tag of runs that says which request wanted them, as the audit does."""
KEY_NAME, BODY_NAME = "ml_platform/idempotency_key", "ml_platform/idempotency_body"
"""Tags of runs that were started under a key."""
COMMIT_KEY, COMMIT_BODY = "idempotency_key", "idempotency_body"
"""The same in the commits of decisions."""


@dataclass(frozen=True)
class ControlRequest:
    """Who wants something done with a use case, and under which key."""

    use_case: UseCase
    caller: Caller
    key: str | None = None
    """Digest of caller, path and Idempotency-Key; None where there was no such header."""
    body: str = ""
    """Digest of the key and the parameters."""
    run_id: str = field(default_factory=lambda: f"api-{uuid.uuid4().hex[:8]}")
    """What the lake's snapshots, the audit and tags of runs say of this request."""

    @property
    def by(self) -> str:
        """The caller's name."""
        return self.caller.name

    @property
    def tags(self) -> Mapping[str, str]:
        """What a run says of who wanted it; Dagster's own tag `user` among it."""
        under = {} if self.key is None else {KEY_NAME: self.key, BODY_NAME: self.body}
        return {"user": self.by, "ml_platform/by": self.by, REQUEST_NAME: self.run_id, **under}

    @property
    def extra(self) -> Mapping[str, str]:
        """What the commit of a decision says of it."""
        return {} if self.key is None else {COMMIT_KEY: self.key, COMMIT_BODY: self.body}

    def require_same(self, body: str | None) -> None:
        """Raise KeyReused where other parameters were sent under this key before."""
        if body != self.body:
            raise KeyReused(REUSED)


@dataclass(frozen=True)
class ControlOutcome:
    """What came of a request."""

    document: Mapping[str, Any]
    run: str | None = None
    """What can be looked at until it is over; None where nothing is under way."""
    is_repeat: bool = False
    """Whether it is the answer that was given before."""


@dataclass(frozen=True)
class Once:
    """Has a request carried out, or gives the answer that it got before."""

    answers: AnswerStore

    def __call__(self, request: ControlRequest, do: Callable[[], ControlOutcome]) -> ControlOutcome:
        """What `do` returns, or returned when it was called under the same key before.

        Nothing is kept of what `do` raises. Raises KeyReused; Overloaded where the first request
        is not answered for long; NotKept where the disk is full, say.
        """
        if request.key is None:
            return do()
        with self.answers.held(request.key) as held:
            if (kept := held.read()) is not None:
                request.require_same(kept.body)
                return replace(
                    msgspec.json.decode(kept.answer, type=ControlOutcome), is_repeat=True
                )
            outcome = do()
            held.keep(StoredAnswer(request.body, msgspec.json.encode(outcome)))
            return outcome


def control_request(
    use_case: UseCase, caller: Caller, path: str, key: str | None, parameters: msgspec.Struct
) -> ControlRequest:
    """A request; key: the Idempotency-Key, which counts for one caller and path."""
    if key is None:
        return ControlRequest(use_case, caller)
    # By principal: another caller may have the same name.
    known = _digest(caller.identity, path, key)
    return ControlRequest(use_case, caller, known, _digest(known, parameters))


def _digest(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:40]
