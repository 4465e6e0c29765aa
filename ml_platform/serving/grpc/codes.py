"""Errors as gRPC answers."""

from collections.abc import Mapping
from typing import Any

import grpc
import grpc.aio

from ml_platform.errors import (
    Forbidden,
    IssuerAway,
    ModelNotFound,
    ModelRefused,
    NotServed,
    Overloaded,
    PlatformError,
    RateExceeded,
    RequestRefused,
    RequestTooLarge,
    Unauthenticated,
)

CODES: Mapping[type[PlatformError], grpc.StatusCode] = {
    RequestRefused: grpc.StatusCode.INVALID_ARGUMENT,
    NotServed: grpc.StatusCode.NOT_FOUND,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    Overloaded: grpc.StatusCode.UNAVAILABLE,
    IssuerAway: grpc.StatusCode.UNAVAILABLE,
    RateExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
}
"""gRPC code of an error; INTERNAL of any other one."""

Context = grpc.aio.ServicerContext[Any, Any]


async def abort(context: Context, error: PlatformError) -> None:
    """End a call with what an error becomes; `retry-after` says in seconds when to try again."""
    code = next(
        (CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL
    )
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, Overloaded | RateExceeded):
        trailing = (("retry-after", str(error.retry_after_seconds)),)
    await context.abort(code, str(error), trailing)
