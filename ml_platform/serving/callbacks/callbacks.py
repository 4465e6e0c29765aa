"""Registered with a run, notified when it has ended in whatever way, until that arrives."""

import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, TypedDict

from msgspec import Meta

from ml_platform.access import Action, Audit
from ml_platform.errors import PlatformError
from ml_platform.serving.callbacks.post import Post, Posted
from ml_platform.serving.callbacks.receivers import Receiver, Receivers
from ml_platform.serving.callbacks.store import Callback, CallbackStore, State
from ml_platform.settings import ServingSettings
from ml_platform.spec.use_case import digest
from ml_platform.storage import Commit, Lake

LOOK_SECONDS, LONGEST_LOOK_SECONDS = 3.0, 60.0
"""How often a run is looked at whose end somebody waits for: less often while it runs."""
LATE = 0.02
"""By so much of what a run has taken, a callback may come late."""
UNAVAILABLE_SECONDS = 15.0
"""When it is looked at again where Dagster did not say."""
MOST_A_TURN = 50
FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 3600.0
ACTION = "call back"
"""What the audit calls it."""
BY = "ml-platform serve"

Look = Callable[[str, str], Mapping[str, Any]]
"""How far a run is, by its id and use case; failed, where nobody knows it any more."""


class CallbackState(TypedDict):
    """What has become of a notification that a run has ended."""

    to: str
    status: State
    attempts: int
    said: Annotated[str | None, Meta(description="Answer to the last attempt.")]
    notified_at: str | None
    next_at: str | None


@dataclass(frozen=True)
class Callbacks:
    """Callbacks of a deployment. Everything blocks."""

    lake: Lake
    store: CallbackStore
    receivers: Receivers
    post: Post
    look: Look

    @property
    def settings(self) -> ServingSettings:
        return self.receivers.settings

    def addressed(self, names: Iterable[str], uri: str | None) -> tuple[Receiver, ...]:
        """As `Receivers.addressed`."""
        return self.receivers.addressed(tuple(names), uri)

    def add(self, run: str, use_case: str, by: str, receivers: Iterable[Receiver]) -> None:
        """Have receivers notified of the end of a run; each is notified once. Raises NotKept.

        by: who asks for it.
        """
        now = time.time()
        self.store.add(
            [
                Callback(
                    id=f"cb_{digest(run, each.name, each.url)}", run=run,
                    use_case=use_case, receiver=each.name, url=each.url,
                    asked_by=by, state="waiting", attempts=0, said="", next_at=now,
                    first_at=now, over_at=None, notified_at=None,
                )
                for each in receivers
            ]
        )  # fmt: skip

    def states(self, run: str) -> list[CallbackState]:
        """What has become of the callbacks of a run; addresses of requests by their host alone."""
        return [_state_of(callback) for callback in self.store.of_run(run)]

    def turn(self) -> int:
        """Look at the runs that are due, and call where one has ended; how many were looked at.

        Raises what the store and the audit raise; what was not kept is sent once more later, by
        the same id.
        """
        for count in range(MOST_A_TURN):
            if (callback := self.store.take(time.time())) is None:
                return count
            self.store.update(self._carried_on(callback))
        return MOST_A_TURN

    def close(self) -> None:
        self.post.close()

    def _carried_on(self, callback: Callback) -> Callback:
        try:
            document = self.look(callback.run, callback.use_case)
        except PlatformError as error:
            return replace(
                callback, next_at=time.time() + UNAVAILABLE_SECONDS, said=str(error)[:200]
            )
        now = time.time()
        if not document["run"]["is_over"]:
            wait = min(max(LATE * (now - callback.first_at), LOOK_SECONDS), LONGEST_LOOK_SECONDS)
            return replace(callback, next_at=now + wait, said="")
        ended = replace(callback, over_at=callback.over_at or now)
        return self._settled(ended, self.post(ended, document, now), document)

    def _settled(self, ended: Callback, posted: Posted, document: Mapping[str, Any]) -> Callback:
        now, since = time.time(), ended.over_at or 0.0
        if posted.arrived:
            settled = replace(ended, state="delivered", said=posted.said, notified_at=now, url="")
        elif posted.is_final or now - since > self.settings.callback_hours * 3600:
            settled = replace(
                ended, state="given up", said=posted.said, notified_at=now, url="",
                attempts=ended.attempts + 1,
            )  # fmt: skip
        else:
            wait = min(FIRST_RETRY_SECONDS * 2**ended.attempts, LONGEST_RETRY_SECONDS)
            # Those that one receiver did not take do not all come back at the same moment.
            wait *= random.uniform(0.8, 1.2)
            return replace(ended, attempts=ended.attempts + 1, said=posted.said, next_at=now + wait)
        self._record(settled, document["run"]["status"])
        return settled

    def _record(self, settled: Callback, status: str) -> None:
        details = {
            "run": settled.run, "status": status, "outcome": settled.state, "said": settled.said,
            "attempts": str(settled.attempts + (settled.state == "delivered")),
            "for": settled.asked_by,
        }  # fmt: skip
        action = Action(BY, "api", ACTION, settled.use_case, settled.receiver, details)
        Audit(self.lake).record(action, Commit(settled.id, "", "platform/audit"))


def _state_of(callback: Callback) -> CallbackState:
    waiting = callback.state == "waiting"
    return {
        "to": callback.receiver,
        "status": callback.state,
        "attempts": callback.attempts + (callback.state == "delivered"),
        "said": callback.said or None,
        "notified_at": _moment(callback.notified_at),
        "next_at": _moment(callback.next_at) if waiting and callback.over_at else None,
    }


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()
