"""Feedback and the review queue in plain JSON."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, timedelta
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.access import Caller
from ml_platform.errors import RequestRefused
from ml_platform.features import entity_types
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import parse, read_body
from ml_platform.serving.http.endpoints import (
    Answer,
    Body,
    Need,
    Parameter,
    PathSubject,
    Schema,
    endpoint,
)
from ml_platform.serving.http.problems import OF_BODIES, problem_of, said_of
from ml_platform.serving.http.samples import PREDICTION, label_of, labelled
from ml_platform.serving.http.schemas import LABELS, PREDICTION_PATTERN, TIME, sent_value
from ml_platform.serving.records.feedback import MOST_ITEMS, REVIEW, Said
from ml_platform.serving.records.items import KINDS
from ml_platform.serving.records.review import MOST_LISTED, Uncertain
from ml_platform.serving.service import Service
from ml_platform.serving.zones import ItemTimes

TAG = "feedback"
Kind = Annotated[
    Literal["label", "correction"], Meta(description="`correction` changes what was said before.")
]


class FeedbackRequest(Struct, frozen=True):
    """Labels and corrections; all of them are taken, or none."""

    items: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MOST_ITEMS)]


class FeedbackResponse(Struct, frozen=True):
    """Feedback that is on the disk."""

    taken: int
    ids: list[str]
    times_read: ItemTimes | UnsetType = UNSET


class Waiting(Struct, frozen=True):
    """Predictions that wait for a person."""

    use_case: str
    waiting: list[Uncertain]


class ReviewRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """A person's answer about a prediction, or that there is none."""

    label: Any = UNSET
    skip: bool | UnsetType = UNSET
    kind: Kind | None = None
    by: Annotated[str, Meta(description="Who answers, where keys do not say it.")] | None = None


class Reviewed(Struct, frozen=True):
    """1 where an answer was taken, 0 where it had been given before."""

    taken: int


def _items(subject: PathSubject) -> Schema:
    case = subject.case
    item = {
        "type": "object",
        "required": ["label"],
        "properties": {
            **{
                name: sent_value(kind)
                for name, kind in entity_types(case, case.examples.entity).items()
            },
            "event_time": {**TIME, "description": "Of the row, with the entity's columns."},
            "prediction_id": {
                "type": ["string", "null"],
                "pattern": PREDICTION_PATTERN,
                "description": "Instead of entity and event time. Who got the prediction needs "
                "no permission but `predict`.",
            },
            "label": LABELS[case.label.task],
            "kind": {"enum": list(KINDS)},
            "known_at": {
                **TIME,
                "description": "When the label was known, not before the event time; now, if left "
                "out.",
            },
        },
        "additionalProperties": False,
    }
    return {"items": {"type": "array", "items": item, "minItems": 1, "maxItems": MOST_ITEMS}}


def _impossible(subject: PathSubject) -> dict[int, Any]:
    case = subject.case
    start = case.calendar.start.astimezone(UTC)
    early = (start - timedelta(days=1)).isoformat()
    begun = {
        "known too early": ("known_at", f"is before the event time, {start.isoformat()}; a label "
                            "is known once it has happened"),
        "outside of the history": ("event_time", f"its event time, {early}, is outside of the "
                                   f"history, which is {case.partitions.reach}: there will never "
                                   "be such an example"),
    }  # fmt: skip
    return {
        422: {
            name: {**problem_of(HTTPStatus(422), f"item 0: `{key}`: {why}"), "field": key}
            for name, (key, why) in begun.items()
        }
    }


def _unanswerable(subject: PathSubject) -> dict[int, Any]:
    case = subject.case
    of, at = f"prediction '{PREDICTION}' of {case.name}", "2024-03-01T12:05:00+00:00"
    begun = f"prediction '{PREDICTION}' waits no more: "
    within = case.serving.review.within if case.serving.review else ""
    said = {
        404: {
            "unknown": f"no {of} waits for a person: there is none of that id, or it has not been "
            "ingested yet",
            "not in the queue": f"{of} never waited for a person, as it was certain enough or "
            "answered nobody; say its label as feedback",
        },
        409: {
            "answered": f"{begun}ada answered 'true' at {at}; to change that, send a correction",
            "skipped": f"{begun}ada skipped it at {at}; to change that, send a correction",
            "too old": f"{begun}it was made at {at}, longer ago than {within}; say its label as "
            "feedback",
        },
    }
    return {
        status: {name: problem_of(HTTPStatus(status), detail) for name, detail in each.items()}
        for status, each in said.items()
    }


def _takes_feedback(subject: PathSubject) -> bool:
    return subject.model is not None and subject.case.takes_feedback


def _is_reviewed(subject: PathSubject) -> bool:
    return subject.model is not None and subject.case.serving.review is not None


def _label(subject: PathSubject) -> Schema:
    return {"label": LABELS[subject.case.label.task], "skip": {"const": True}}


def _use_case(subject: PathSubject) -> Schema:
    return {"use_case": {"const": subject.case.name}}


@dataclass(frozen=True)
class FeedbackPaths:
    """Handlers of what comes back."""

    service: Service

    @endpoint(
        "POST", "/feedback/{use_case}",
        # Who may only predict speaks of what was answered to them, which their ids say.
        needs=Need("label", instead="predict"),
        when=_takes_feedback,
        summary="Labels and corrections; all of them are taken, or none",
        tag=TAG,
        body=Body(
            FeedbackRequest, lambda of: {"items": [labelled(of.case, of.answering)]}, _items
        ),
        answers={202: Answer(FeedbackResponse, "They are on the disk.")},
        problems={
            **OF_BODIES, **said_of(404, 507),
            403: "Who may predict and not `label` speaks of predictions alone that were answered "
            "to them, by their ids: the detail names the other items. Nothing was taken.",
            422: "A time or a class cannot be: `field` names it. Nothing was taken.",
        },
        examples=_impossible,
    )  # fmt: skip
    async def take(self, request: Request) -> Response:
        """Labels and corrections; answered when they are on the disk."""
        name = request.path_params["use_case"]
        self.service.live.require_here(name)
        asked = parse(await read_body(request, self.service.settings), FeedbackRequest)
        caller: Caller = request.scope["caller"]
        without_label = None if caller.may("label", name) else caller
        said = Said("feedback", caller.name, details=caller.details, without_label=without_label)
        taken = await asyncio.to_thread(self.service.records.feedback.take, name, asked.items, said)
        body = FeedbackResponse(len(taken.ids), list(taken.ids), taken.times_read or UNSET)
        return as_json(body, HTTPStatus.ACCEPTED)

    @endpoint(
        "GET", "/review/{use_case}",
        # What waits for an answer shows what others asked: only for those who give answers.
        needs=Need("label"),
        when=_is_reviewed,
        summary="Predictions that wait for a person, the latest first",
        tag=TAG,
        answers={200: Answer(Waiting, narrow=_use_case)},
        problems=said_of(400, 404),
        parameters=(
            Parameter(
                "limit",
                {"type": "integer", "minimum": 1, "maximum": MOST_LISTED, "default": 50},
                place="query",
            ),
        ),
    )  # fmt: skip
    async def waiting(self, request: Request) -> Response:
        """Predictions that wait for a person."""
        name, limit = request.path_params["use_case"], request.query_params.get("limit", "50")
        if not (limit.isascii() and limit.isdigit()):
            raise RequestRefused(f"`limit` is '{limit[:20]}'; it should be a number")
        self.service.live.require_here(name)
        found = await asyncio.to_thread(self.service.records.reviews.waiting, name, int(limit[:9]))
        return as_json(Waiting(name, found))

    @endpoint(
        "POST", "/review/{use_case}/{prediction}",
        needs=Need("label"),
        when=_is_reviewed,
        summary="A person's answer about a prediction, or that there is none",
        tag=TAG,
        body=Body(
            ReviewRequest, lambda of: {"label": label_of(of.case, of.answering)}, _label,
            forms=(("label", "kind", "by"), ("skip", "by")),
        ),
        answers={
            202: Answer(Reviewed, "It is on the disk."),
            200: Answer(Reviewed, "You said so before."),
        },
        problems={
            **OF_BODIES, **said_of(507),
            404: "Nothing is reviewed here, or the prediction never waited for a person.",
            409: "It waits no more: somebody answered or skipped it, or it is too old.",
            422: "What it predicts has not happened yet, or the label is not a known class.",
        },
        examples=_unanswerable,
        parameters=(
            Parameter(
                "prediction",
                {"type": "string", "maxLength": 200, "pattern": PREDICTION_PATTERN},
                "As the queue names it.",
                example=lambda of: PREDICTION,
            ),
        ),
    )  # fmt: skip
    async def answer(self, request: Request) -> Response:
        """A person's answer about one prediction, or that there is none."""
        name, prediction = request.path_params["use_case"], request.path_params["prediction"]
        self.service.live.require_here(name)
        self.service.records.reviews.require(name)
        asked = parse(await read_body(request, self.service.settings), ReviewRequest)
        answers = self.service.records.answers
        caller: Caller = request.scope["caller"]
        name_given = caller.name if caller.is_proved else asked.by or caller.name
        said = Said(REVIEW, name_given, details=caller.details)
        if asked.skip is True and asked.label is UNSET and asked.kind is None:
            is_new = await asyncio.to_thread(answers.skip, name, prediction, said)
        elif asked.skip is UNSET and asked.label is not UNSET:
            give = partial(answers.label, corrects=asked.kind == "correction")
            is_new = await asyncio.to_thread(give, name, prediction, asked.label, said)
        else:
            raise RequestRefused(
                "the body should have either `label`, and `kind: correction` to change an "
                "answer, or `skip: true`; and `by`"
            )
        return as_json(Reviewed(int(is_new)), HTTPStatus.ACCEPTED if is_new else HTTPStatus.OK)
