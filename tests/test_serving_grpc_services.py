"""What stands beside predictions over gRPC: health and reflection, for tools that others wrote."""

import contextlib
import queue
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from ml_platform.access import Grant, create_key
from ml_platform.serving.draining import DRAINING
from ml_platform.serving.grpc.guard import NEEDS
from ml_platform.serving.grpc.server import FILES
from ml_platform.serving.grpc.streams import SHARE
from tests.served import ROW, Deployment, Served
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

INFERENCE = "inference.GRPCInferenceService"
Status = health_pb2.HealthCheckResponse
LIST = reflection_pb2.ServerReflectionRequest(list_services="")


@pytest.fixture(scope="module")
def channel(served: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(served.grpc) as channel:
        yield channel


@pytest.fixture
def draining() -> Iterator[None]:
    """What a process is given, as the service of these tests is in this one."""
    DRAINING.set()
    yield
    DRAINING.clear()


@contextlib.contextmanager
def asked(deployment: Deployment, **changes: Any) -> Iterator[grpc.Channel]:
    with deployment.served(**changes) as served, grpc.insecure_channel(served.grpc) as channel:
        yield channel


def check(channel: grpc.Channel, service: str = "") -> str:
    try:
        asked = health_pb2.HealthCheckRequest(service=service)
        return str(Status.ServingStatus.Name(HealthStub(channel).Check(asked, timeout=60).status))
    except grpc.RpcError as error:
        return str(error.code().name)


def watch(channel: grpc.Channel, service: str = "") -> Any:
    return HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service), timeout=60)


def code_of(call: Any) -> grpc.StatusCode:
    """How a call ends that is not answered any more."""
    with pytest.raises(grpc.RpcError):
        next(call)
    return call.code()


def test_every_method_that_is_served_says_what_it_needs() -> None:
    methods = [
        f"/{service.full_name}/{method}"
        for file in FILES
        for service in file.services_by_name.values()
        for method in service.methods_by_name
    ]
    assert sorted(methods) == sorted(NEEDS)


def test_health_is_of_the_server_and_of_each_service(channel: grpc.Channel) -> None:
    assert check(channel) == check(channel, INFERENCE) == "SERVING"
    assert check(channel, "trips") == "NOT_FOUND"
    # A service may come later, says the protocol: whoever watches is not rejected.
    assert next(watch(channel, "trips")).status == Status.SERVICE_UNKNOWN


def test_a_process_that_stops_soon_is_not_ready(channel: grpc.Channel, draining: None) -> None:
    assert check(channel) == check(channel, INFERENCE) == "NOT_SERVING"


def test_all_who_watch_are_updated(channel: grpc.Channel, request: pytest.FixtureRequest) -> None:
    gone, stays = watch(channel), watch(channel)
    assert next(gone).status == next(stays).status == Status.SERVING
    gone.cancel()
    request.getfixturevalue("draining")
    assert next(stays).status == Status.NOT_SERVING
    DRAINING.clear()
    assert next(stays).status == Status.SERVING
    stays.cancel()


def test_a_client_without_messages_asks_what_there_is_and_predicts(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) == {
        INFERENCE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection",
    }  # fmt: skip
    pool = DescriptorPool(database)
    assert set(pool.FindServiceByName("grpc.health.v1.Health").methods_by_name) == {
        "Check",
        "Watch",
    }
    method = pool.FindServiceByName(INFERENCE).methods_by_name["ModelInfer"]
    inputs = [
        {"name": name, "shape": [1], "datatype": "FP64", "contents": {"fp64_contents": [value]}}
        for name, value in ROW.items()
    ]
    inputs[0] |= {"datatype": "BYTES", "contents": {"bytes_contents": ["Qm9zdG9u"]}}
    asked = ParseDict(
        {"model_name": "trips", "inputs": inputs}, GetMessageClass(method.input_type)()
    )
    ask = channel.unary_unary(
        f"/{INFERENCE}/ModelInfer",
        request_serializer=type(asked).SerializeToString,
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    (output,) = ask(asked, timeout=60).outputs
    assert output.name == "probability"


def test_reflection_needs_what_openapi_needs_and_health_nothing(deployment: Deployment) -> None:
    def key(use_case: str) -> tuple[tuple[str, str], ...]:
        _, text = create_key(
            deployment.lake, "grpcurl", [Grant("reader", use_case)],
            expires_at=datetime.now(UTC) + timedelta(days=1), created_by="ada", commit=COMMIT,
        )  # fmt: skip
        return (("authorization", f"Bearer {text}"),)

    trips, elsewhere = key("trips"), key("flights")
    with asked(deployment, authentication=True) as channel:
        reflect = ServerReflectionStub(channel).ServerReflectionInfo
        for metadata, code in (
            ((), grpc.StatusCode.UNAUTHENTICATED),
            (elsewhere, grpc.StatusCode.PERMISSION_DENIED),
        ):
            assert code_of(reflect(iter([LIST]), metadata=metadata, timeout=60)) is code
        (answer,) = reflect(iter([LIST]), metadata=trips, timeout=60)
        assert len(answer.list_services_response.service) == 3
        assert check(channel) == "SERVING"
        assert next(watch(channel)).status == Status.SERVING


def test_calls_that_stay_open_leave_room_for_others(deployment: Deployment) -> None:
    with asked(deployment, most_connections=2 * SHARE) as channel:
        open_calls = [watch(channel), watch(channel)]
        assert [next(each).status for each in open_calls] == [Status.SERVING] * 2
        assert code_of(watch(channel)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert check(channel) == "SERVING"
        open_calls[0].cancel()
        open_calls[0] = None
        while True:
            another = watch(channel)
            try:
                assert next(another).status == Status.SERVING
                break
            except grpc.RpcError:
                assert another.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_messages_of_reflection_have_bounds_too(deployment: Deployment) -> None:
    method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
    with asked(deployment, body_seconds=0.5, most_bytes=10_000) as channel:
        reflect = channel.stream_stream(method)

        def code(*sent: bytes, **options: Any) -> grpc.StatusCode:
            return code_of(reflect(iter(sent), timeout=60, **options))

        assert code(b"\xff") is grpc.StatusCode.INVALID_ARGUMENT
        bomb = code(bytes(1_000_000), compression=grpc.Compression.Gzip)
        assert bomb is grpc.StatusCode.RESOURCE_EXHAUSTED
        never: queue.Queue[bytes] = queue.Queue()
        silent = reflect(iter(never.get, b""), timeout=60)
        assert code_of(silent) is grpc.StatusCode.DEADLINE_EXCEEDED
        never.put(b"")
        assert len(list(reflect(iter([LIST.SerializeToString()]), timeout=60))) == 1


def test_who_watches_keeps_no_process_from_stopping(deployment: Deployment) -> None:
    with contextlib.ExitStack() as stack:
        # As long as that a body would be waited for.
        with deployment.served(body_seconds=3600) as served:
            call = watch(stack.enter_context(grpc.insecure_channel(served.grpc)))
            assert next(call).status == Status.SERVING
        assert code_of(call) is grpc.StatusCode.UNAVAILABLE
