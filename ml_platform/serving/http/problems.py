"""Errors as HTTP answers: problem+json, RFC 9457."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

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
    IssuerAway,
    KeyReused,
    LaunchRefused,
    ModelNotFound,
    ModelRefused,
    NoChampion,
    NotKept,
    NotReviewed,
    NotServed,
    OnlineStoreError,
    OrchestratorAway,
    OrchestratorError,
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
    IssuerAway: HTTPStatus.SERVICE_UNAVAILABLE,
    RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    OriginRefused: HTTPStatus.FORBIDDEN,
    NotKept: HTTPStatus.INSUFFICIENT_STORAGE,
    KeyReused: HTTPStatus.UNPROCESSABLE_ENTITY,
    OrchestratorAway: HTTPStatus.SERVICE_UNAVAILABLE,
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
OPEN_INFERENCE = "/v2"
AWAY_SECONDS = 30
"""When to ask again while Dagster or MLflow is away."""


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
    body = {"type": "about:blank", "title": status.phrase, "status": status.value, "detail": detail}
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
    if isinstance(error, OrchestratorAway | Unavailable):
        headers["Retry-After"] = str(AWAY_SECONDS)
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
    """What any other error becomes: nothing of it is told, the log has it."""
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
