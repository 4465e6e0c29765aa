"""Errors as HTTP answers: problem+json, RFC 9457."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any, NotRequired, TypedDict

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from ml_platform.errors import (
    AnswerRefused,
    ClassUnknown,
    EmptyPartition,
    EndRefused,
    Forbidden,
    IssuerUnavailable,
    KeyReused,
    LaunchRefused,
    ModelNotFound,
    ModelRefused,
    NoChampion,
    NotKept,
    NotReviewed,
    NotServed,
    OnlineStoreError,
    OrchestratorError,
    OrchestratorUnavailable,
    OriginRefused,
    ParameterNotAllowed,
    ParameterRefused,
    PlatformError,
    QueryFailed,
    RateExceeded,
    RequestRefused,
    RequestTooLarge,
    RollbackRefused,
    RuleBroken,
    RunUnknown,
    TableNotFound,
    TimeRefused,
    TryLater,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
    WaitsNoMore,
)

STATUS: Mapping[type[PlatformError], HTTPStatus] = {
    RequestRefused: HTTPStatus.BAD_REQUEST,
    TimeRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    ClassUnknown: HTTPStatus.UNPROCESSABLE_ENTITY,
    ParameterNotAllowed: HTTPStatus.UNPROCESSABLE_ENTITY,
    UnsupportedMedia: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    NotServed: HTTPStatus.NOT_FOUND,
    NotReviewed: HTTPStatus.NOT_FOUND,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    # Values of their types that landing rows may not have.
    RuleBroken: HTTPStatus.UNPROCESSABLE_ENTITY,
    # The rows passed every check and the model still cannot: an imputer is missing, say.
    ModelRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    # Values of their types that the use case's SQL cannot compute with: a sum overflows, say.
    QueryFailed: HTTPStatus.UNPROCESSABLE_ENTITY,
    OnlineStoreError: HTTPStatus.SERVICE_UNAVAILABLE,
    TryLater: HTTPStatus.SERVICE_UNAVAILABLE,
    IssuerUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    OriginRefused: HTTPStatus.FORBIDDEN,
    NotKept: HTTPStatus.INSUFFICIENT_STORAGE,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    OrchestratorUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    # A server that is needed for it does not answer: of the lake, MLflow, a database of others.
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    OrchestratorError: HTTPStatus.BAD_GATEWAY,
    RunUnknown: HTTPStatus.NOT_FOUND,
    # What is asked for is sound, and things are not so that it can be done.
    LaunchRefused: HTTPStatus.CONFLICT,
    EndRefused: HTTPStatus.CONFLICT,
    AnswerRefused: HTTPStatus.CONFLICT,
    WaitsNoMore: HTTPStatus.CONFLICT,
    RollbackRefused: HTTPStatus.CONFLICT,
    NoChampion: HTTPStatus.CONFLICT,
    EmptyPartition: HTTPStatus.CONFLICT,
    TableNotFound: HTTPStatus.CONFLICT,
}
"""HTTP status of an error; 500 of any other one."""
SAID: Mapping[int, str] = {
    400: "The request is not as it should be; `column` or `field` names what is at fault.",
    401: "Nobody knows who asks: send a key or a token.",
    403: "Who asks may not do this: `permission` says what is missing.",
    404: "No such use case, or no such version of it, is served.",
    413: "Too many bytes or rows.",
    415: "The body is in a form that is not read: send JSON, as it is or packed with gzip.",
    422: "A row breaks a rule of its source, or is sound and the model cannot predict it.",
    429: "This caller asks too often; Retry-After says when to ask again.",
    503: "It cannot be answered in time, or what is needed for it is unavailable; ask again, where "
    "there is a Retry-After, then.",
    507: "It could not be written down; nothing of it was taken.",
}
"""What openapi.json says of the statuses of problems, where a path says nothing else."""


def said_of(*statuses: int) -> dict[int, str]:
    """Statuses with what is usually said of them."""
    return {status: SAID[status] for status in statuses}


OF_BODIES = said_of(400, 413, 415)
"""What becomes of a request whose body cannot be used."""
OF_PREDICTIONS = {**OF_BODIES, **said_of(404, 422, 503)}
OPEN_INFERENCE = "/v2"
UNAVAILABLE_SECONDS = 30
"""When to ask again while Dagster or MLflow is unavailable."""


class Problem(TypedDict):
    """What went wrong, by RFC 9457."""

    type: str
    title: str
    status: int
    detail: Annotated[str, msgspec.Meta(description="What is wrong and what to do about it.")]
    error: NotRequired[Annotated[str, msgspec.Meta(description="The same, below `/v2`.")]]
    column: NotRequired[Annotated[str, msgspec.Meta(description="The column at fault.")]]
    columns: NotRequired[
        Annotated[list[str], msgspec.Meta(description="What the broken rule is about.")]
    ]
    row: NotRequired[
        Annotated[int, msgspec.Meta(description="Which row breaks the rule, counted from 0.")]
    ]
    rule: NotRequired[
        Annotated[str, msgspec.Meta(description="The rule of the source that a row breaks.")]
    ]
    field: NotRequired[Annotated[str, msgspec.Meta(description="The parameter at fault.")]]
    permission: NotRequired[Annotated[str, msgspec.Meta(description="What the caller lacks.")]]
    use_case: NotRequired[Annotated[str, msgspec.Meta(description="What the caller lacks it for.")]]


def problem_of(status: HTTPStatus, detail: str) -> Problem:
    """A problem without more members than each one has."""
    return {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}


def problem(
    scope: Scope,
    status: HTTPStatus,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: str | int | Sequence[str],
) -> Response:
    """An answer that says what went wrong.

    Below `/v2` it has the member `error` too, which clients of the protocol show.
    """
    body: dict[str, Any] = {**problem_of(status, detail)}
    if scope["path"].startswith(OPEN_INFERENCE):
        body["error"] = detail
    return Response(
        msgspec.json.encode({**body, **more}),
        status,
        headers,
        media_type="application/problem+json",
    )


async def answer_platform_error(request: Request, error: Exception) -> Response:
    """What a PlatformError becomes."""
    assert isinstance(error, PlatformError)
    request.state.error_kind = type(error).__name__
    return answer_error(error, request.scope)


def answer_error(error: PlatformError, scope: Scope) -> Response:
    """As `answer_platform_error`, where there is no Starlette request yet."""
    status = next(
        (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    headers: dict[str, str] = {}
    more: dict[str, str | int | Sequence[str]] = {}
    if isinstance(error, TryLater | RateExceeded):
        headers["Retry-After"] = str(error.retry_after_seconds)
    if isinstance(error, OrchestratorUnavailable | Unavailable):
        headers["Retry-After"] = str(UNAVAILABLE_SECONDS)
    if isinstance(error, ParameterRefused):
        more["field"] = error.field
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = 'Bearer realm="ml-platform"'
    if isinstance(error, Forbidden):
        more |= {"permission": error.permission, "use_case": error.use_case[:60]}
    if isinstance(error, RequestRefused) and error.column is not None:
        more["column"] = error.column
    if isinstance(error, RuleBroken):
        more |= {"columns": error.columns, "row": error.row, "rule": error.rule}
    return problem(scope, status, str(error), headers, **more)


async def answer_unexpected(request: Request, error: Exception) -> Response:
    """What any other error becomes: nothing of it is shown, the log has it."""
    request_id = str(request.scope.get("state", {}).get("request_id", ""))
    detail = "the service failed at this request; its log has the reason under the request's id"
    headers = {"X-Request-Id": request_id} if request_id else {}
    return problem(request.scope, HTTPStatus.INTERNAL_SERVER_ERROR, detail, headers)


async def answer_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette itself refuses: paths and methods that there are not."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    # Not `request.url`, which is made of the Host header too, whatever that holds.
    detail = f"{request.method} {request.scope['path'][:200]}: {error.detail}"
    return problem(request.scope, status, detail, error.headers)
