"""Paths that start, decide and end, for schedulers and other software."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from ml_platform.access import Caller
from ml_platform.errors import Overloaded, ParameterRefused
from ml_platform.serving.control import (
    Backfill,
    Control,
    Decide,
    Order,
    Outcome,
    Rollback,
    Score,
    Train,
    order_of,
    read,
)
from ml_platform.serving.control.documents import path_of
from ml_platform.serving.http.bodies import read_body
from ml_platform.serving.versions.live import LiveVersions
from ml_platform.settings import ServingSettings

DEEDS: dict[str, type[msgspec.Struct]] = {
    "train": Train,
    "score": Score,
    "backfill": Backfill,
    "approve": Decide,
    "reject": Decide,
    "rollback": Rollback,
}
"""What the last part of a path asks for, and its parameters."""
THREADS = 8
MOST_WAITING = 64
"""Requests that wait for Dagster or the lake in one worker; more are turned away."""
LONGEST_KEY = 255
RUNS = "/control/runs/{run}"

T = TypeVar("T")


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

    def routes(self) -> list[Route]:
        """Paths and their handlers."""
        control = self.control
        deeds: dict[str, Callable[[Order, Any], Outcome]] = {
            "train": control.launches.train,
            "score": control.launches.score,
            "backfill": control.launches.backfill,
            "approve": partial(control.decisions.decide, approve=True),
            "reject": partial(control.decisions.decide, approve=False),
            "rollback": control.decisions.rollback,
        }
        return [
            Route(RUNS, self.look),
            Route(RUNS, self.end, methods=["DELETE"]),
            *(
                Route(f"/control/{{use_case}}/{name}", self._handler(name, do), methods=["POST"])
                for name, do in deeds.items()
            ),
        ]

    def close(self) -> None:
        """Let the threads end; what waits is not begun any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.control.close()

    async def look(self, request: Request) -> Response:
        """How far a run is."""
        caller: Caller = request.scope["caller"]
        run_id = request.path_params["run"]
        document = await self.aside(self.control.look, run_id, partial(caller.may, "read"))
        return as_json(document)

    async def end(self, request: Request) -> Response:
        """End a run."""
        caller: Caller = request.scope["caller"]
        visible, require = partial(caller.may, "read"), partial(caller.require, "launch")
        run_id = request.path_params["run"]
        document = await self.aside(self.control.end, run_id, caller, visible, require)
        over = document["run"]["is_over"]
        return as_json(document, HTTPStatus.OK if over else HTTPStatus.ACCEPTED)

    def _handler(self, name: str, do: Callable[[Order, Any], Outcome]) -> Callable[..., Any]:
        kind = DEEDS[name]

        async def handle(request: Request) -> Response:
            use_case = self.live.of(request.path_params["use_case"]).use_case
            parameters = read(await read_body(request, self.settings), kind)
            caller: Caller = request.scope["caller"]
            key = key_of(request)
            order = order_of(use_case, caller, request.scope["path"], key, parameters)
            return answered(await self.aside(do, order, parameters))

        return handle

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


def answered(outcome: Outcome) -> Response:
    """202 with where to look, where something is under way; else 200."""
    headers = {"Idempotency-Replayed": "true"} if outcome.is_repeat else {}
    if outcome.run is None:
        return as_json(outcome.document, HTTPStatus.OK, headers)
    headers["Location"] = path_of(outcome.run)
    return as_json(outcome.document, HTTPStatus.ACCEPTED, headers)


def as_json(
    document: Any, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    """A document as an answer."""
    return Response(msgspec.json.encode(document), status, headers, media_type="application/json")
