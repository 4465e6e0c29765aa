"""Errors as gRPC answers."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

import grpc
import grpc.aio

from ml_platform.errors import (
    Forbidden,
    IssuerUnavailable,
    ModelNotFound,
    ModelRefused,
    NotServed,
    PlatformError,
    RateExceeded,
    RequestRefused,
    RequestTooLarge,
    TryLater,
    Unauthenticated,
    Unavailable,
)

CODES: Mapping[type[PlatformError], grpc.StatusCode] = {
    RequestRefused: grpc.StatusCode.INVALID_ARGUMENT,
    NotServed: grpc.StatusCode.NOT_FOUND,
    ModelNotFound: grpc.StatusCode.NOT_FOUND,
    RequestTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ModelRefused: grpc.StatusCode.FAILED_PRECONDITION,
    TryLater: grpc.StatusCode.UNAVAILABLE,
    IssuerUnavailable: grpc.StatusCode.UNAVAILABLE,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    RateExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
}
"""gRPC code of an error; INTERNAL of any other one."""
FAILURES = frozenset(
    {
        grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DATA_LOSS,
    }
)  # fmt: skip
"""Codes that OpenTelemetry takes for the server's fault; the others are the caller's."""

Context = grpc.aio.ServicerContext[Any, Any]


def address_of(context: Context) -> str:
    """Where a call came from, without the port, which says nothing of who it is."""
    # A peer is `ipv4:127.0.0.1:1234`, `ipv6:[::1]:1234` or `ipv6:%5B::1%5D:1234`.
    address = unquote(context.peer()).partition(":")[2].rpartition(":")[0]
    return address.strip("[]")


async def abort(context: Context, error: PlatformError) -> None:
    """End a call with what an error becomes; `retry-after` says in seconds when to try again."""
    code = next(
        (CODES[kind] for kind in type(error).__mro__ if kind in CODES), grpc.StatusCode.INTERNAL
    )
    trailing: tuple[tuple[str, str], ...] = ()
    if isinstance(error, TryLater | RateExceeded):
        trailing = (("retry-after", str(error.retry_after_seconds)),)
    await context.abort(code, str(error), trailing)
