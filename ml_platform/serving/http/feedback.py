"""Feedback and the review queue in plain JSON."""

import asyncio
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.access import Caller
from ml_platform.errors import RequestRefused
from ml_platform.serving.http.bodies import parse_json, read_body
from ml_platform.serving.records.feedback import REVIEW, Said
from ml_platform.serving.records.items import KINDS
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
        self.service.live.require_here(name)
        caller: Caller = request.scope["caller"]
        without_label = None if caller.may("label", name) else caller
        said = Said("feedback", caller.name, told=caller.told, without_label=without_label)
        taken = await asyncio.to_thread(self.service.records.feedback.take, name, items, said)
        read = taken.times_read
        body = {
            "taken": len(taken.ids), "ids": taken.ids, **(read.body("item") if read else {})
        }  # fmt: skip
        return _json(body, HTTPStatus.ACCEPTED)

    async def waiting(self, request: Request) -> Response:
        """Predictions that wait for a person."""
        name, limit = request.path_params["use_case"], request.query_params.get("limit", "50")
        if not (limit.isascii() and limit.isdigit()):
            raise RequestRefused(f"`limit` is '{limit[:20]}'; it should be a number")
        self.service.live.require_here(name)
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
        self.service.live.require_here(name)
        self.service.records.reviews.require(name)
        answers = self.service.records.answers
        caller: Caller = request.scope["caller"]
        name_given = caller.name if caller.is_proved else by or caller.name
        said = Said(REVIEW, name_given, told=caller.told)
        kind = document.pop("kind", None)
        match document:
            case {"skip": True} if len(document) == 1 and kind is None:
                is_new = await asyncio.to_thread(answers.skip, name, prediction, said)
            case {"label": label} if len(document) == 1 and kind in (None, *KINDS):
                give = partial(answers.label, corrects=kind == "correction")
                is_new = await asyncio.to_thread(give, name, prediction, label, said)
            case _:
                raise RequestRefused(
                    "the body should have either `label`, and `kind: correction` to change an "
                    "answer, or `skip: true`; and `by`"
                )
        return _json({"taken": int(is_new)}, HTTPStatus.ACCEPTED if is_new else HTTPStatus.OK)


def _json(document: Any, status: HTTPStatus) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
