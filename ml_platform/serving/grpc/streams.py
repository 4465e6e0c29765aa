"""Calls that stay open: bounded in number, their messages timed, ended before the server stops."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import chain
from typing import Any

import grpc
import grpc.aio

from ml_platform.errors import RequestError
from ml_platform.serving.grpc.bodies import timed
from ml_platform.serving.grpc.codes import Context, abort

SHARE = 8
"""Of the calls that may be open at once, one in so many may be of one method that stays open."""


class Streams(grpc.aio.ServerInterceptor):
    """Around methods that answer more than once; `end` ends the calls of all of them."""

    def __init__(self, most_calls: int, message_seconds: float) -> None:
        self._most, self._seconds = max(1, most_calls // SHARE), message_seconds
        self._open: defaultdict[str, set[asyncio.Timeout]] = defaultdict(set)

    def end(self) -> None:
        """End all calls: whoever stops the server would wait for them."""
        now = asyncio.get_running_loop().time()
        for call in chain.from_iterable(self._open.values()):
            call.reschedule(now)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, as one of many messages, of which it may read one only."""
        handler = await continuation(handler_call_details)
        if handler is None or not handler.response_streaming:
            return handler
        calls = self._open[str(handler_call_details.method)]

        async def answer(messages: AsyncIterator[Any], context: Context) -> None:
            if len(calls) >= self._most:
                problem = f"{self._most} calls of this method are open already"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, problem)
            try:
                async with asyncio.timeout(None) as call:
                    calls.add(call)
                    try:
                        await self._relay(handler, messages, context)
                    finally:
                        calls.discard(call)
            except TimeoutError:
                problem = "this process is about to stop; ask another one"
                await context.abort(grpc.StatusCode.UNAVAILABLE, problem)

        return grpc.stream_stream_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )

    async def _relay(self, handler: Any, messages: AsyncIterator[Any], context: Context) -> None:
        asked = self._sound(messages, context)
        if handler.request_streaming:
            answers = handler.stream_stream(asked, context)
        elif (message := await anext(asked, None)) is not None:
            answers = handler.unary_stream(message, context)
        else:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "there is no message")
        async for each in answers:
            await context.write(each)

    async def _sound(self, messages: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for message in timed(messages, self._seconds, context):
            if isinstance(message, RequestError):
                await abort(context, message)
            yield message
