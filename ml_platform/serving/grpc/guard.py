"""What each method needs, and who is rejected for lack of it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio

from ml_platform.access import ANY, Caller, Permission
from ml_platform.errors import AccessError, PlatformError, RequestError
from ml_platform.serving.admission import CALLER, Admission, with_address
from ml_platform.serving.grpc.codes import Context, abort, address_of


@dataclass(frozen=True)
class MethodNeed:
    """What a caller has to be permitted to, with the use case that a field of the message names.

    Without a field, any use case will do.
    """

    permission: Permission
    field: str | None


PUBLIC = None

NEEDS: Mapping[str, MethodNeed | None] = {
    "/inference.GRPCInferenceService/ServerLive": PUBLIC,
    "/inference.GRPCInferenceService/ServerReady": PUBLIC,
    "/inference.GRPCInferenceService/ServerMetadata": MethodNeed("read", None),
    "/inference.GRPCInferenceService/ModelReady": MethodNeed("read", "name"),
    "/inference.GRPCInferenceService/ModelMetadata": MethodNeed("read", "name"),
    "/inference.GRPCInferenceService/ModelInfer": MethodNeed("predict", "model_name"),
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    # Messages and methods, as openapi.json describes paths.
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": MethodNeed("read", None),
}
"""By method. One that is not listed cannot be called."""

PUBLIC_METHODS = frozenset(method for method, need in NEEDS.items() if need is PUBLIC)

# Generic for type checkers alone.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class AdmissionInterceptor(grpc.aio.ServerInterceptor):
    """Finds out who calls before the message is looked at, and what it asks for afterwards."""

    def __init__(self, admission: Admission, use_cases: Callable[[], tuple[str, ...]]) -> None:
        self._admission, self._use_cases = admission, use_cases

    async def intercept_service(
        self, continuation: Continuation, details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        # Methods that nobody handles are answered as such.
        if handler is None:
            return None
        if details.method not in NEEDS:
            unsaid = AccessError(f"nobody said who may {details.method[:100]}")
            return _refusing(lambda context: unsaid)
        need = NEEDS[details.method]
        if need is PUBLIC:
            return handler
        metadata = dict(details.invocation_metadata or ())
        try:
            caller = await self._admission.admit(
                _text(metadata.get("authorization")), _text(metadata.get("x-api-key"))
            )
            if handler.response_streaming:
                # Of many messages none names a use case: what it needs is known by now.
                self._check(caller, need, None)
                return handler
        except RequestError as error:
            return self._refusing(error)
        return self._checking(handler, caller, need)

    def _refusing(self, error: RequestError) -> Handler:
        # Where a call comes from is known to its handler only.
        return _refusing(lambda context: self._admission.refused(error, address_of(context)))

    def _checking(self, handler: Handler, caller: Caller, need: MethodNeed) -> Handler:
        async def answer(request: Any, context: Context) -> Any:
            try:
                if isinstance(request, RequestError):
                    raise request
                self._check(caller, need, request)
            except RequestError as error:
                await abort(context, error)
            CALLER.set(with_address(caller, address_of(context)))
            return await behaviour(request, context)

        # The stubs know the behaviour of servers with threads only.
        behaviour: Any = handler.unary_unary
        return grpc.unary_unary_rpc_method_handler(
            cast(Any, answer), handler.request_deserializer, handler.response_serializer
        )

    def _check(self, caller: Caller, need: MethodNeed, request: Any) -> None:
        if need.field is not None:
            caller.require(need.permission, getattr(request, need.field))
        elif not caller.those_where(need.permission, (ANY, *self._use_cases())):
            caller.require(need.permission, ANY)


def _refusing(why: Callable[[Context], PlatformError]) -> Handler:
    async def refuse(request: bytes, context: Context) -> None:
        await abort(context, why(context))

    # Without a deserializer: what someone unknown has sent is not even parsed.
    return grpc.unary_unary_rpc_method_handler(cast(Any, refuse))


def _text(value: str | bytes | None) -> str | None:
    return value.decode("latin-1") if isinstance(value, bytes) else value
