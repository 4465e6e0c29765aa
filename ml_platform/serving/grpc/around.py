"""What stands around methods: one place that takes a handler apart and makes another of it."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio

from ml_platform.serving.grpc.codes import Context

Behaviour = Callable[[Any, Context], Awaitable[Any]]
"""What answers a call; the first argument is what the client has sent."""


class Around(grpc.aio.ServerInterceptor, ABC):
    """An interceptor whose `around` makes the behaviour of a method another one.

    Methods of many messages it leaves as they are: what they need is in `streams`.
    """

    make_handler: Callable[..., Any] = staticmethod(grpc.unary_unary_rpc_method_handler)
    """How many messages the other behaviour takes and gives."""

    @abstractmethod
    def around(self, method: str, inner: Behaviour) -> Behaviour:
        """The behaviour of a method, by its full name."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """The handler, with something around it; None where nobody handles the method."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler
        return self.make_handler(
            self.around(str(handler_call_details.method), handler.unary_unary),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )
