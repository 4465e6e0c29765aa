"""Messages of calls: read within bounds of size and time, unpacked, parsed."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ml_platform.errors import PlatformError, RequestError, RequestRefused, RequestTooLarge
from ml_platform.serving.grpc.around import Around, Behaviour
from ml_platform.serving.grpc.codes import Context, abort

PACKED = (b"\x1f\x8b", b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
"""How gzip and deflate begin; no message of the protocol does."""
EITHER = 32 + zlib.MAX_WBITS
"""How zlib is asked to find out which of the two it is."""
OPTIONS = (("grpc.per_message_decompression", 0),)
"""For the server: gRPC itself would unpack a message to any size before it looks at it."""


class Timed(Around):
    """Ends calls whose message does not arrive; gRPC alone would wait for it for ever."""

    # As a method of many messages, of which one is read: of a method of one message gRPC calls
    # nobody before it has come. To the caller the two are the same.
    make_handler = staticmethod(grpc.stream_unary_rpc_method_handler)

    def __init__(self, body_seconds: float) -> None:
        self._seconds = body_seconds

    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """The behaviour, which is handed its message as soon as it has come."""

        async def answer(messages: AsyncIterator[Any], context: Context) -> Any:
            async for message in timed(messages, self._seconds, context):
                return await inner(message, context)
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")

        return answer


async def timed(
    messages: AsyncIterator[Any], seconds: float, context: Context
) -> AsyncIterator[Any]:
    """The messages of a call; it is ended where one does not arrive in time."""
    while True:
        try:
            async with asyncio.timeout(seconds):
                message = await anext(messages)
        except TimeoutError:
            problem = f"the message did not arrive within {seconds:g} seconds"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, problem)
        except StopAsyncIteration:
            return
        yield message


class Answering(grpc.aio.ServerInterceptor):
    """Parses messages within bounds of size, and ends calls with the codes of errors."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, which parses in another way and may raise errors of the platform."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        read = _reader(handler.request_deserializer, self._most_bytes)
        if handler.unary_unary is None:
            return handler._replace(request_deserializer=read)
        behaviour = _answering(handler.unary_unary)
        return handler._replace(request_deserializer=read, unary_unary=behaviour)


def _answering(inner: Behaviour) -> Behaviour:
    async def answer(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, RequestError):
                raise request
            return await inner(request, context)
        except PlatformError as error:
            await abort(context, error)

    return answer


def _reader(parse: Callable[[bytes], Any], most_bytes: int) -> Callable[[bytes], Any]:
    # What is no message becomes an error in its place: raised here, it would reach the caller as a
    # failure of the server.
    def read(data: bytes) -> Any:
        try:
            return parse(_unpacked(data, most_bytes))
        except DecodeError:
            return RequestRefused("the message is not what this method takes")
        except RequestError as error:
            return error

    return read


def _unpacked(data: bytes, most_bytes: int) -> bytes:
    if not data.startswith(PACKED):
        return data
    unpacker = zlib.decompressobj(EITHER)
    try:
        unpacked = unpacker.decompress(data, most_bytes + 1)
    except zlib.error:
        return data
    if len(unpacked) > most_bytes:
        raise RequestTooLarge(f"the message is larger than {most_bytes} bytes; send it in parts")
    # What ends too early is no message either.
    return unpacked if unpacker.eof else data
