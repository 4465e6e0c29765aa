"""Paths that start, decide and end, for schedulers and other software."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.access import Caller
from ml_platform.backfill.upkeep import newest_complete
from ml_platform.errors import Overloaded, ParameterRefused
from ml_platform.serving.control import (
    BackfillParameters,
    Control,
    ControlOutcome,
    ControlRequest,
    Decide,
    Rollback,
    Score,
    Train,
    control_request,
    read,
)
from ml_platform.serving.control.documents import Done, Look, path_of
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import read_body
from ml_platform.serving.http.endpoints import (
    Answer,
    Body,
    Need,
    Parameter,
    PathSubject,
    endpoint,
)
from ml_platform.serving.http.problems import OF_BODIES
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.settings import ServingSettings
from ml_platform.spec.use_case import UseCase

THREADS = 8
MOST_WAITING = 64
"""Requests that wait for Dagster or the lake in one worker; more are rejected."""
LONGEST_KEY = 255
TAG = "control"

SAID = {
    **OF_BODIES,
    400: "A parameter is not as it should be: `field` names it.",
    404: "There is no such use case, version or run.",
    409: "It cannot be done as things are; what Dagster refuses is in its own words.",
    422: "This Idempotency-Key came with other parameters before.",
    502: "Dagster failed.",
    503: "Dagster or MLflow is unavailable, or busy; Retry-After says when to ask again.",
    507: "The answer could not be stored.",
}
"""What goes wrong here."""
KEY = Parameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": "^[ -~]+$"},
    "Repeats of one caller with the same key get the first answer; nothing is done twice.",
    "header",
)
RUN = Parameter(
    "run", {"type": "string", "minLength": 1, "maxLength": 200},
    "As `run.id` says, and `Location`.",
    example=lambda of: "3f0c1b52-6d0e-4a53-9d8b-0a4c5f0f7a11",
)  # fmt: skip
DECIDED = {200: Answer(Done, "Decided, or nothing to do")}
UNDER_WAY = {**DECIDED, 202: Answer(Look, "It is under way", headers=("Location",))}
"""Answers of what is decided at once, and of what is still running."""
ACTION: dict[str, Any] = {"problems": SAID, "parameters": (KEY,), "tag": TAG}

T = TypeVar("T")
Parameters = TypeVar("Parameters", bound=msgspec.Struct)


def newest_key(use_case: UseCase) -> str:
    """The newest partition that is over, or the first one."""
    calendar = use_case.calendar
    newest = newest_complete(use_case, datetime.now(UTC))
    return calendar.key(newest or calendar.window_at(calendar.start))


def _train(of: PathSubject) -> Any:
    return {"cutoff": newest_key(of.case), "reason": "the monthly training"}


def _score(of: PathSubject) -> Any:
    return {"partition": newest_key(of.case)}


def _backfill(of: PathSubject) -> Any:
    calendar = of.case.calendar
    first = calendar.key(calendar.window_at(calendar.start))
    range_ = {"from": first, "to": newest_key(of.case)}
    return {"tables": ["predictions"], **range_, "dry_run": True}


def _decide(of: PathSubject) -> Any:
    return {"version": 3, "reason": "checked the segments"}


def _rollback(of: PathSubject) -> Any:
    return {"reason": "it predicts too many delays", "serving": 3, "dry_run": True}


@dataclass
class ControlPaths:
    """Handlers of the paths. What blocks is done in threads of their own."""

    control: Control
    live: LiveVersions
    settings: ServingSettings
    _threads: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(THREADS, "control")
    )
    _waiting: int = 0

    @endpoint(
        "POST", "/control/{use_case}/train",
        needs=Need("launch"),
        summary="Train a challenger for the gate to decide about",
        body=Body(Train, _train, required=False),
        answers=UNDER_WAY,
        **ACTION,
    )  # fmt: skip
    async def train(self, request: Request) -> Response:
        """Train a challenger."""
        return await self._do(request, Train, self.control.launches.train)

    @endpoint(
        "POST", "/control/{use_case}/score",
        needs=Need("launch"),
        summary="Predict a partition, a range, or the rows of a file or table",
        body=Body(Score, _score, required=False),
        answers=UNDER_WAY,
        **ACTION,
    )  # fmt: skip
    async def score(self, request: Request) -> Response:
        """Predict a batch."""
        return await self._do(request, Score, self.control.launches.score)

    @endpoint(
        "POST", "/control/{use_case}/backfill",
        needs=Need("launch"),
        summary="Compute what is missing, failed or stale",
        body=Body(BackfillParameters, _backfill, required=False),
        answers=UNDER_WAY,
        **ACTION,
    )  # fmt: skip
    async def backfill(self, request: Request) -> Response:
        """Compute what is missing, failed or stale."""
        return await self._do(request, BackfillParameters, self.control.launches.backfill)

    @endpoint(
        "POST", "/control/{use_case}/approve",
        needs=Need("approve"),
        summary="Let a version that waits serve",
        body=Body(Decide, _decide),
        answers=DECIDED,
        **ACTION,
    )  # fmt: skip
    async def approve(self, request: Request) -> Response:
        """Let a version that waits serve."""
        decide = partial(self.control.decisions.decide, approve=True)
        return await self._do(request, Decide, decide)

    @endpoint(
        "POST", "/control/{use_case}/reject",
        needs=Need("approve"),
        summary="Refuse a version that waits",
        body=Body(Decide, _decide),
        answers=DECIDED,
        **ACTION,
    )  # fmt: skip
    async def reject(self, request: Request) -> Response:
        """Refuse a version that waits."""
        decide = partial(self.control.decisions.decide, approve=False)
        return await self._do(request, Decide, decide)

    @endpoint(
        "POST", "/control/{use_case}/rollback",
        needs=Need("rollback"),
        summary="Let an earlier version serve again, and recompute what later ones wrote",
        body=Body(Rollback, _rollback),
        answers=UNDER_WAY,
        **ACTION,
    )  # fmt: skip
    async def rollback(self, request: Request) -> Response:
        """Let an earlier version serve again."""
        return await self._do(request, Rollback, self.control.decisions.rollback)

    @endpoint(
        "GET", "/control/runs/{run}",
        # Of which use case a run is turns out when it is looked at: only then all is asked for.
        needs=Need("read", "some"),
        summary="How far a run is",
        answers={200: Answer(Look, "As it is now")},
        problems=SAID,
        parameters=(RUN,),
        tag=TAG,
    )  # fmt: skip
    async def look(self, request: Request) -> Response:
        """How far a run is."""
        caller: Caller = request.scope["caller"]
        run_id = request.path_params["run"]
        document = await self.aside(self.control.look, run_id, partial(caller.may, "read"))
        return as_json(document)

    @endpoint(
        "DELETE", "/control/runs/{run}",
        needs=Need("launch", "some"),
        summary="End a run",
        answers={200: Answer(Look, "It is over"), 202: Answer(Look, "It is being ended")},
        problems=SAID,
        parameters=(RUN,),
        tag=TAG,
    )  # fmt: skip
    async def end(self, request: Request) -> Response:
        """End a run."""
        caller: Caller = request.scope["caller"]
        visible, require = partial(caller.may, "read"), partial(caller.require, "launch")
        run_id = request.path_params["run"]
        document = await self.aside(self.control.end, run_id, caller, visible, require)
        over = document["run"]["is_over"]
        return as_json(document, HTTPStatus.OK if over else HTTPStatus.ACCEPTED)

    def close(self) -> None:
        """Let the threads end; what waits is not begun any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.control.close()

    async def _do(
        self,
        request: Request,
        kind: type[Parameters],
        do: Callable[[ControlRequest, Parameters], ControlOutcome],
    ) -> Response:
        use_case = self.live.of(request.path_params["use_case"]).use_case
        parameters = read(await read_body(request, self.settings), kind)
        caller: Caller = request.scope["caller"]
        parsed = control_request(
            use_case, caller, request.scope["path"], key_of(request), parameters
        )
        return answered(await self.aside(do, parsed, parameters))

    async def aside(self, do: Callable[..., T], *arguments: Any) -> T:
        """Have something done that blocks; Overloaded where too much waits already."""
        if self._waiting >= MOST_WAITING:
            raise Overloaded("too many requests wait for Dagster; ask again", 5)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, do, *arguments)
        finally:
            self._waiting -= 1


def key_of(request: Request) -> str | None:
    """The Idempotency-Key; ParameterRefused where it cannot be one."""
    given = request.headers.get("idempotency-key")
    if given is not None and not (
        0 < len(given) <= LONGEST_KEY and given.isascii() and given.isprintable()
    ):
        raise ParameterRefused(
            "Idempotency-Key", f"the header should have 1 to {LONGEST_KEY} printable characters"
        )
    return given


def answered(outcome: ControlOutcome) -> Response:
    """202 with where to look, where something is under way; else 200."""
    headers = {"Idempotency-Replayed": "true"} if outcome.is_repeat else {}
    if outcome.run is None:
        return as_json(outcome.document, HTTPStatus.OK, headers)
    headers["Location"] = path_of(outcome.run)
    return as_json(outcome.document, HTTPStatus.ACCEPTED, headers)
