"""The Open Inference Protocol over gRPC, around the same service as HTTP."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from ml_platform.errors import RequestRefused
from ml_platform.open_inference import inference_pb2 as messages
from ml_platform.open_inference import inference_pb2_grpc
from ml_platform.serving.admission import Admission
from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.calls import Call
from ml_platform.serving.datatypes import BYTES
from ml_platform.serving.draining import DRAINING
from ml_platform.serving.grpc.bodies import OPTIONS, Answering, Timed
from ml_platform.serving.grpc.codes import Context
from ml_platform.serving.grpc.guard import AdmissionInterceptor
from ml_platform.serving.grpc.health import HealthService
from ml_platform.serving.grpc.streams import Streams
from ml_platform.serving.service import Service
from ml_platform.serving.tensors import (
    Tensor,
    TensorMetadata,
    columns_of,
    decode,
    describe_inputs,
    describe_outputs,
    read_binary,
    tensors_of,
    write_binary,
)
from ml_platform.serving.tls import certificates

CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", BYTES: "bytes_contents",
}  # fmt: skip

MOST_CALLS = 256
"""At once on one connection; further ones wait at the client."""

FILES = (messages.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
"""All that is served, as reflection shows it."""
SERVICES = tuple(service.full_name for file in FILES for service in file.services_by_name.values())


@dataclass(frozen=True)
class Running:
    """A server that answers."""

    _server: grpc.aio.Server
    _streams: Streams
    _grace_seconds: float

    async def stop(self) -> None:
        """Answer what has come, and end."""
        self._streams.end()
        await self._server.stop(self._grace_seconds)


async def start_server(
    service: Service, admission: Admission, observed: grpc.aio.ServerInterceptor
) -> tuple[Running, int]:
    """A server that listens already, and its port. Processes may share a port.

    observed: what is around admission, so that those who are rejected are seen as well.
    """
    settings = service.settings
    streams = Streams(settings.most_connections, settings.body_seconds)
    server = grpc.aio.server(
        interceptors=[
            Timed(settings.body_seconds),
            observed,
            AdmissionInterceptor(admission, lambda: service.live.names),
            streams,
            Answering(settings.most_bytes),
        ],
        options=[
            ("grpc.max_receive_message_length", settings.most_bytes),
            ("grpc.so_reuseport", 1),
            ("grpc.max_allowed_incoming_connections", settings.most_connections),
            *OPTIONS,
            *_patience(int(settings.head_seconds * 1000)),
        ],
        maximum_concurrent_rpcs=settings.most_connections,
    )
    _add_services(server, service)
    address, tls = f"{settings.host}:{settings.grpc_port}", certificates(settings)
    if tls is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, tls.grpc_credentials())
    await server.start()
    return Running(server, streams, settings.body_seconds), port


def _add_services(server: grpc.aio.Server, service: Service) -> None:
    inference = _Inference(service)
    inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(inference, server)
    health_pb2_grpc.add_HealthServicer_to_server(
        HealthService(SERVICES, inference.is_ready), server
    )
    # Messages of the protocol are in a pool of their own.
    pool = DescriptorPool()
    for file in FILES:
        pool.AddSerializedFile(file.serialized_pb)
    reflection.enable_server_reflection(SERVICES, server, pool)


def _patience(milliseconds: int) -> Iterator[tuple[str, int]]:
    """Options that end connections which nobody speaks on, and bound the calls of each."""
    yield "grpc.server_handshake_timeout_ms", milliseconds
    # Who does not answer a ping in time is not there any more.
    yield "grpc.keepalive_time_ms", milliseconds
    yield "grpc.http2.ping_timeout_ms", milliseconds
    yield "grpc.keepalive_permit_without_calls", 1
    yield "grpc.http2.max_pings_without_data", 0
    yield "grpc.max_concurrent_streams", MOST_CALLS


class _Inference(inference_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, service: Service) -> None:
        self._service = service

    def is_ready(self) -> bool:
        return self._service.live.ready and not DRAINING.is_set()

    async def ServerLive(
        self, request: messages.ServerLiveRequest, context: Context
    ) -> messages.ServerLiveResponse:
        return messages.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: messages.ServerReadyRequest, context: Context
    ) -> messages.ServerReadyResponse:
        return messages.ServerReadyResponse(ready=self.is_ready())

    async def ServerMetadata(
        self, request: messages.ServerMetadataRequest, context: Context
    ) -> messages.ServerMetadataResponse:
        return messages.ServerMetadataResponse(name="ml-platform", version="2")

    async def ModelReady(
        self, request: messages.ModelReadyRequest, context: Context
    ) -> messages.ModelReadyResponse:
        self._service.live.model(request.name, request.version or None)
        return messages.ModelReadyResponse(ready=not DRAINING.is_set())

    async def ModelMetadata(
        self, request: messages.ModelMetadataRequest, context: Context
    ) -> messages.ModelMetadataResponse:
        model = self._service.live.model(request.name, request.version or None)
        case = self._service.live.of(request.name).use_case
        return messages.ModelMetadataResponse(
            name=request.name,
            versions=[str(model.version)],
            platform="sklearn",
            inputs=_described(describe_inputs(model)),
            outputs=_described(describe_outputs(case, model)),
        )

    async def ModelInfer(
        self, request: messages.ModelInferRequest, context: Context
    ) -> messages.ModelInferResponse:
        service, name, version = self._service, request.model_name, request.model_version or None
        call = Call.begin("oip-grpc")
        with service.records.requests.watching(name, call, lambda: service.version_of(name)):
            model = service.live.model(name, version)
            await service.parse_queue.turn(request.ByteSize())
            columns = columns_of(_read_tensors(request), model)
            answer = await service.predict(name, columns, version, call)
        response = _respond(request, answer)
        response.parameters["request_id"].string_param = call.request_id
        response.parameters["prediction_id"].string_param = answer.ids[0]
        return response


def _read_tensors(request: messages.ModelInferRequest) -> Iterator[Tensor]:
    raw = list(request.raw_input_contents)
    if raw and len(raw) != len(request.inputs):
        raise RequestRefused(f"{len(raw)} raw contents for {len(request.inputs)} inputs")
    for index, each in enumerate(request.inputs):
        name, kind, shape = each.name, each.datatype, tuple(each.shape)
        if any(size < 0 for size in shape):
            raise RequestRefused("its shape has a negative size", name[:60])
        if raw:
            yield Tensor(name, kind, shape, read_binary(name, kind, raw[index]))
            continue
        if kind not in CONTENTS:
            known = ", ".join(CONTENTS)
            raise RequestRefused(f"datatype '{kind[:20]}' is not one of {known}", name[:60])
        used = [field.name for field, _ in each.contents.ListFields()]
        if used not in ([], [CONTENTS[kind]]):
            stand = " and ".join(used)
            problem = f"its values stand in {stand}; {kind} has {CONTENTS[kind]}"
            raise RequestRefused(problem, name[:60])
        values = list(getattr(each.contents, CONTENTS[kind]))
        if kind == BYTES:
            values = [decode(name, text) for text in values]
        yield Tensor(name, kind, shape, values)


def _respond(
    request: messages.ModelInferRequest, answer: Predictions
) -> messages.ModelInferResponse:
    # The version that answered: another one may have begun to serve while the request was read.
    version = str(answer.model.version)
    response = messages.ModelInferResponse(
        model_name=request.model_name, model_version=version, id=request.id
    )
    tensors = {tensor.name: tensor for tensor in tensors_of(answer)}
    # Each once, however often it is asked for.
    wanted = dict.fromkeys(output.name for output in request.outputs) or tensors
    for name in wanted:
        if name not in tensors:
            known = ", ".join(tensors)
            raise RequestRefused(f"there is no output '{name[:60]}'; there are: {known}")
        tensor = tensors[name]
        output = response.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
        # Answered as it was asked: raw, which is quicker, or value by value.
        if request.raw_input_contents:
            response.raw_output_contents.append(write_binary(tensor))
        else:
            values = tensor.values
            if tensor.datatype == BYTES:
                values = [str(value).encode() for value in values]
            getattr(output.contents, CONTENTS[tensor.datatype]).extend(values)
    return response


def _described(
    columns: Iterable[TensorMetadata],
) -> list[messages.ModelMetadataResponse.TensorMetadata]:
    kind = messages.ModelMetadataResponse.TensorMetadata
    return [kind(name=each.name, datatype=each.datatype, shape=each.shape) for each in columns]
