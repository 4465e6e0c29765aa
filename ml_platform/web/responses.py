"""Answers of the pages: templates, and what is shown where there is no page."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse

from ml_platform.errors import (
    AnswerRefused,
    EmptyPartition,
    Forbidden,
    ModelNotFound,
    ModelRefused,
    NoChampion,
    NotReviewed,
    NotServed,
    OriginRefused,
    PlatformError,
    RateExceeded,
    RequestRefused,
    RequestTooLarge,
    SubjectNotFound,
    TableNotFound,
    Unauthenticated,
    Unavailable,
    WaitsNoMore,
)
from ml_platform.extras import NotInstalled
from ml_platform.web.rendering import headers, render, render_in_parts
from ml_platform.web.site import PageNotFound

STATUS: Mapping[type[PlatformError], HTTPStatus] = {
    EmptyPartition: HTTPStatus.NOT_FOUND,
    SubjectNotFound: HTTPStatus.NOT_FOUND,
    TableNotFound: HTTPStatus.NOT_FOUND,
    ModelNotFound: HTTPStatus.NOT_FOUND,
    NoChampion: HTTPStatus.NOT_FOUND,
    ModelRefused: HTTPStatus.CONFLICT,
    NotServed: HTTPStatus.NOT_FOUND,
    NotReviewed: HTTPStatus.NOT_FOUND,
    WaitsNoMore: HTTPStatus.CONFLICT,
    AnswerRefused: HTTPStatus.CONFLICT,
    RequestRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    RequestTooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    RateExceeded: HTTPStatus.TOO_MANY_REQUESTS,
    Unauthenticated: HTTPStatus.UNAUTHORIZED,
    Forbidden: HTTPStatus.FORBIDDEN,
    OriginRefused: HTTPStatus.FORBIDDEN,
    NotInstalled: HTTPStatus.NOT_IMPLEMENTED,
    Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""HTTP status of an error; 500 of any other one."""


def page(template: str, values: Mapping[str, Any], status: HTTPStatus = HTTPStatus.OK) -> Response:
    """A page by its template."""
    return HTMLResponse(render(template, values), status, headers=headers())


def in_parts(
    template: str, known: Mapping[str, Any], look: Callable[[], Mapping[str, Any]]
) -> Response:
    """A page whose first part is sent before the rest is looked up. Compressed, it would wait."""
    sent = {**headers(), "Content-Encoding": "identity"}
    parts = render_in_parts(template, known, look)
    return StreamingResponse(parts, media_type="text/html", headers=sent)


def not_found(_request: Request, error: Exception) -> Response:
    """What is shown where there is no page."""
    said = str(error) if isinstance(error, PageNotFound) else PageNotFound.OTHER
    values = {"title": "No such page", "said": said}
    return page("problem.html", values, HTTPStatus.NOT_FOUND)


def failed(_request: Request, error: Exception) -> Response:
    """What is shown where a page raises a PlatformError."""
    found = (STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)
    status = next(found, HTTPStatus.INTERNAL_SERVER_ERROR)
    return page("problem.html", {"title": "This cannot be shown", "said": str(error)}, status)
