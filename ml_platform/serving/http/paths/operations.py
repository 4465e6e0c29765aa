"""What the operations of openapi.json are made of."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeAlias

from ml_platform.registry import ModelVersion
from ml_platform.serving.versions.live import Live
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

JSON = "application/json"
BINARY = "application/octet-stream"
TEXT = "text/plain"
Schema: TypeAlias = "Mapping[str, Any]"
Paths: TypeAlias = "dict[str, dict[str, Any]]"
"""Operations by path and method in small letters."""


@dataclass(frozen=True)
class Served:
    """What a document is about: the use cases that its reader may know of."""

    lives: Sequence[Live]
    is_only_one: bool
    """Whether the service has one use case, so that paths may leave its name out."""

    def models(self) -> Iterator[tuple[UseCase, ModelVersion]]:
        """Use cases that can be asked, with the version that answers."""
        for live in self.lives:
            if live.champion is not None:
                yield live.use_case, live.champion


Group: TypeAlias = "Callable[[Served], Paths]"
"""Describes some of the paths."""

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What is wrong and what to do about it."},
        "error": {
            "type": "string",
            "description": "The same, below `/v2`.",
        },
        "column": {"type": "string", "description": "The column at fault, where it is one."},
        "columns": {
            "type": "array",
            "items": {"type": "string"},
            "description": "What the broken rule is about.",
        },
        "row": {"type": "integer", "description": "Which row breaks the rule, counted from 0."},
        "rule": {"type": "string", "description": "The rule of the source that a row breaks."},
        "field": {"type": "string", "description": "The parameter at fault, where it is one."},
        "permission": {"type": "string", "description": "What the caller lacks."},
        "use_case": {"type": "string", "description": "What the caller lacks it for."},
    },
}
PROBLEMS = {
    400: "The request is not as it should be; `column` names the culprit.",
    401: "Nobody knows who asks: send a key or a token.",
    403: "Who asks may not do this: `permission` says what is missing.",
    404: "No such use case, or no such version of it, is served.",
    413: "Too many bytes or rows.",
    415: "The body is in a form that is not read: send JSON, as it is or packed with gzip.",
    422: "A row breaks a rule of its source, or is sound and the model cannot predict it.",
    429: "This caller asks too often; Retry-After says when to ask again.",
    503: "It cannot be answered in time, or what is needed for it is away; ask again, where there "
    "is a Retry-After, then.",
    507: "It could not be written down; nothing of it was taken.",
}
OF_BODIES = (400, 413, 415)
"""What becomes of a request whose body cannot be used."""
OF_PREDICTIONS = (*OF_BODIES, 404, 422, 503)
HEADERS = {
    "X-Request-Id": {
        "description": "The caller's own, or a new one; it is on each line of the log.",
        "schema": {"type": "string"},
    }
}
RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer"}}
WHO_ASKS = {"description": "How to say who asks.", "schema": {"type": "string"}}
OF_PROBLEMS: Mapping[int, Mapping[str, Any]] = {
    401: {"WWW-Authenticate": {**WHO_ASKS, "required": True}},
    429: {"Retry-After": {**RETRY_AFTER, "required": True}},
    503: {"Retry-After": RETRY_AFTER},
}
"""Headers that go with problems, by status."""


def operation(
    summary: str,
    answers: Mapping[int, Mapping[str, Any]],
    *,
    problems: Iterable[int] | Mapping[int, str] = (),
    examples: Mapping[int, Mapping[str, Any]] | None = None,
    body: Mapping[str, Any] | None = None,
    parameters: Sequence[Mapping[str, Any]] = (),
    tags: Sequence[str] = (),
    public: bool = False,
) -> dict[str, Any]:
    """One operation.

    answers: made by `answer`, by status. problems: statuses that go with a problem, besides those
    that any request can meet, with what is said of them where that is something else than
    elsewhere. examples: problems of some statuses, by name. body: made by `json_body`. public: open
    to everybody.
    """
    met = sorted({*problems, *(() if public else (429,))})
    said_of = {**PROBLEMS, **(problems if isinstance(problems, Mapping) else {})}
    described: dict[str, Any] = {
        "summary": summary,
        "responses": {
            **{str(status): dict(said) for status, said in answers.items()},
            **{
                str(status): problem_answer(status, said_of[status], (examples or {}).get(status))
                for status in met
            },
        },
    }
    if body is not None:
        described["requestBody"] = dict(body)
    if parameters:
        described["parameters"] = [dict(each) for each in parameters]
    if tags:
        described["tags"] = list(tags)
    if public:
        described["security"] = []
    return described


def answer(
    schema: Schema, *kinds: str, description: str = "The answer.", headers: Iterable[str] = ()
) -> dict[str, Any]:
    """An answer of a schema, as JSON unless `kinds` names other media types; bytes have none."""
    content = {
        kind: {"schema": {"type": "string", "format": "binary"} if kind == BINARY else schema}
        for kind in kinds or (JSON,)
    }
    more = {name: {"schema": {"type": "string"}} for name in headers}
    return {"description": description, "headers": {**HEADERS, **more}, "content": content}


def problem_answer(
    status: int, description: str, examples: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The answer that goes with a problem; examples: problems by name, made by `example_of`."""
    content: dict[str, Any] = {"schema": {"$ref": "#/components/schemas/Problem"}}
    if examples:
        content["examples"] = {name: {"value": problem} for name, problem in examples.items()}
    return {
        "description": description,
        "headers": {**HEADERS, **OF_PROBLEMS.get(status, {})},
        "content": {"application/problem+json": content},
    }


def example_of(status: HTTPStatus, detail: str, **more: str) -> dict[str, Any]:
    """A problem as it is answered."""
    problem = {"type": "about:blank", "title": status.phrase, "status": status.value}
    return {**problem, "detail": detail, **more}


def json_body(schema: Schema, example: Any) -> dict[str, Any]:
    """A body of JSON, with one that is answered when it is sent as it stands."""
    return {"required": True, "content": {JSON: {"schema": schema, "example": example}}}


def in_path(
    name: str, description: str, example: str, pattern: str | None = None
) -> dict[str, Any]:
    """A part of the path."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
    if pattern is not None:
        schema["pattern"] = f"^{pattern}$"
    return {
        "name": name, "in": "path", "required": True, "description": description,
        "schema": schema, "example": example,
    }  # fmt: skip


def value_schema(kind: str) -> dict[str, Any]:
    """A value of a column, by its DuckDB type; null stands for what is missing."""
    # Truth values are numbers to a model.
    return {"type": ["number", "boolean", "null"] if is_numeric(kind) else ["string", "null"]}


def fields(properties: Mapping[str, Any], *optional: str, closed: bool = False) -> dict[str, Any]:
    """An object whose properties are all there, but for the optional ones.

    closed: no others are taken.
    """
    described: dict[str, Any] = {
        "type": "object",
        "required": [name for name in properties if name not in optional],
        "properties": dict(properties),
    }
    return {**described, "additionalProperties": False} if closed else described


def times_read(row: str) -> Schema:
    """What an answer says of times without a zone; row: what its rows are called there."""
    read = {row: {"type": "integer"}, "column": {"type": "string"},
            "time": {"type": "string", "format": "date-time"}}  # fmt: skip
    schema = fields(
        {"zone": {"type": "string"}, "read_as": {"type": "array", "items": fields(read)}}
    )
    description = "How times were read that were sent without a zone; not there if all had one."
    return {**schema, "description": description}
