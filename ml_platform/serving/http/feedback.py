"""Feedback and the review queue in plain JSON."""

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.errors import RequestRefused
from ml_platform.serving.calls import known_caller
from ml_platform.serving.http.bodies import parse_json, read_body
from ml_platform.serving.http.calls import caller_of
from ml_platform.serving.records.feedback import Said
from ml_platform.serving.service import Service


@dataclass(frozen=True)
class Feedback:
    """Handlers of what comes back."""

    service: Service

    async def take(self, request: Request) -> Response:
        """Labels and corrections; answered when they are on the disk."""
        document = parse_json(await read_body(request, self.service.settings))
        items = document.get("items") if isinstance(document, dict) else None
        if not isinstance(items, list):
            raise RequestRefused("the body should be an object with `items`, a list of objects")
        name = request.path_params["use_case"]
        said = Said("feedback", caller_of(request))
        taken = await asyncio.to_thread(self.service.records.feedback.take, name, items, said)
        return _json({"taken": len(taken), "ids": taken}, HTTPStatus.ACCEPTED)

    async def waiting(self, request: Request) -> Response:
        """Predictions that wait for a person."""
        name, limit = request.path_params["use_case"], request.query_params.get("limit", "50")
        if not (limit.isascii() and limit.isdigit()):
            raise RequestRefused(f"`limit` is '{limit[:20]}'; it should be a number")
        found = await asyncio.to_thread(self.service.records.reviews.waiting, name, int(limit[:9]))
        return _json({"use_case": name, "waiting": found}, HTTPStatus.OK)

    async def answer(self, request: Request) -> Response:
        """A person's answer about one prediction, or that there is none."""
        document = parse_json(await read_body(request, self.service.settings))
        name, prediction = request.path_params["use_case"], request.path_params["prediction"]
        if not isinstance(document, dict):
            raise RequestRefused("the body should be an object with `label`, or `skip: true`")
        by = document.pop("by", None)
        if by is not None and not isinstance(by, str):
            raise RequestRefused("`by` should be text")
        self.service.records.reviews.require(name)
        inbox = self.service.records.feedback
        said = Said("review", known_caller() or by or caller_of(request))
        match document:
            case {"skip": True} if len(document) == 1:
                await asyncio.to_thread(inbox.skip, name, prediction, said)
            case {"label": label} if len(document) == 1:
                item = {"prediction_id": prediction, "label": label}
                await asyncio.to_thread(inbox.take, name, [item], said)
            case _:
                raise RequestRefused(
                    "the body should have either `label` or `skip: true`, and `by`"
                )
        return _json({"taken": 1}, HTTPStatus.ACCEPTED)


def _json(document: Any, status: HTTPStatus) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
