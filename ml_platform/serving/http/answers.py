"""Answers in JSON."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

from ml_platform.serving.http.endpoints import JSON


def as_json(
    document: Any,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A document as an answer."""
    return Response(msgspec.json.encode(document), status, headers, media_type=JSON)
