"""Calls that mean harm, over gRPC: never an internal error, and the server continues to answer."""

import struct
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.open_inference import inference_pb2 as messages
from tests.attacked import is_closed_on
from tests.examples import at_most
from tests.served import ROW, Deployment, Served

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

(SERVICE,) = messages.DESCRIPTOR.services_by_name.values()
METHODS = sorted(SERVICE.methods_by_name)

Code = grpc.StatusCode
CALLERS_OWN = {
    Code.OK, Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.RESOURCE_EXHAUSTED,
    Code.FAILED_PRECONDITION,
}  # fmt: skip
FUZZED = settings(
    max_examples=at_most(150), deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip


class Caller:
    """Sends bytes as they are."""

    def __init__(self, address: str, *options: tuple[str, Any]) -> None:
        unbounded = (("grpc.max_send_message_length", -1), *options)
        self._channel = grpc.insecure_channel(address, options=unbounded)

    def code(
        self, method: str, message: bytes, compression: grpc.Compression | None = None
    ) -> tuple[Code, str]:
        """What became of a call, and the reason."""
        try:
            self.ask(method, message, compression)
        except grpc.RpcError as error:
            return error.code(), error.details()
        return Code.OK, ""

    def ask(
        self, method: str, message: bytes, compression: grpc.Compression | None = None
    ) -> bytes:
        call = self._channel.unary_unary(f"/{SERVICE.full_name}/{method}")
        return call(message, timeout=60, compression=compression)

    def stream(self, method: str) -> Any:
        """A method as if messages could come one by one: what is sent is the same."""
        return self._channel.stream_unary(f"/{SERVICE.full_name}/{method}")

    def close(self) -> None:
        self._channel.close()


@pytest.fixture(scope="module")
def caller(served: Served) -> Iterator[Caller]:
    caller = Caller(served.grpc)
    yield caller
    caller.close()


@pytest.fixture(autouse=True)
def answering(caller: Caller) -> Iterator[None]:
    """After each test the server still answers."""
    yield
    assert caller.code("ModelInfer", request().SerializeToString()) == (Code.OK, "")


def request(**changes: Any) -> Any:
    """A request that is answered."""
    made = messages.ModelInferRequest(model_name="trips")
    for name, value in {**ROW, **changes}.items():
        text = isinstance(value, str)
        tensor = made.inputs.add(name=name, shape=[1], datatype="BYTES" if text else "FP64")
        if text:
            tensor.contents.bytes_contents.append(value.encode())
        else:
            tensor.contents.fp64_contents.append(value)
    return made


def check(found: tuple[Code, str]) -> None:
    code, details = found
    assert code in CALLERS_OWN, found
    assert len(details) < 2_000


@FUZZED
@given(st.sampled_from(METHODS), st.binary(max_size=400))
def test_any_bytes_are_the_callers_own_mistake(caller: Caller, method: str, sent: bytes) -> None:
    check(caller.code(method, sent))


def varint(number: int) -> bytes:
    parts = bytearray()
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def packed(field: int, value: int | bytes) -> bytes:
    """A field as protobuf writes it."""
    match value:
        case bytes():
            return varint(field << 3 | 2) + varint(len(value)) + value
        case int():
            return varint(field << 3) + varint(value)


FIELDS = st.recursive(
    st.one_of(
        st.builds(packed, st.integers(1, 9), st.integers(0, 2**64 - 1)),
        st.builds(packed, st.integers(1, 9), st.binary(max_size=30)),
        st.builds(packed, st.integers(1, 9), st.sampled_from([b"trips", b"city", b"BYTES", b"1"])),
        st.builds(lambda f, d: varint(f << 3 | 1) + struct.pack("<d", d), st.integers(1, 9),
                  st.floats()),
    ),
    lambda inner: st.builds(
        lambda field, parts: packed(field, b"".join(parts)), st.integers(1, 9), st.lists(inner)
    ),
    max_leaves=20,
)  # fmt: skip


@FUZZED
@given(st.sampled_from(METHODS), st.lists(FIELDS))
def test_any_fields_are_the_callers_own_mistake(
    caller: Caller, method: str, fields: list[bytes]
) -> None:
    check(caller.code(method, packed(1, b"trips") + b"".join(fields)))


NAMES = st.one_of(st.sampled_from([*ROW, "predict", "x" * 5_000, "../../etc", "a\0b"]), st.text())
KINDS = st.one_of(
    st.sampled_from(["BYTES", "FP64", "FP32", "FP16", "INT64", "UINT64", "INT8", "BOOL", "BF16"]),
    st.text(max_size=5),
)
SHAPES = st.lists(st.sampled_from([0, 1, 1, 1, 2, 3, -1, 2**31, 2**62, -(2**63)]), max_size=4)
CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "int_contents": st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3),
        "int64_contents": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
        "uint64_contents": st.lists(st.integers(0, 2**64 - 1), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "fp64_contents": st.lists(st.floats(), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=8), max_size=3),
    },
)


@FUZZED
@given(st.data())
def test_any_tensor_is_the_callers_own_mistake(caller: Caller, data: st.DataObject) -> None:
    made = request()
    if data.draw(st.booleans(), "few"):
        del made.inputs[data.draw(st.integers(0, 2)) :]
    for _ in range(data.draw(st.integers(0, 3), "more")):
        made.inputs.add(
            name=data.draw(NAMES),
            datatype=data.draw(KINDS),
            shape=data.draw(SHAPES),
            contents=data.draw(CONTENTS),
        )
    for tensor in made.inputs[:3]:
        if data.draw(st.integers(0, 4)) == 0:
            tensor.datatype = data.draw(KINDS)
        if data.draw(st.integers(0, 4)) == 0:
            tensor.ClearField("shape")
            tensor.shape.extend(data.draw(SHAPES))
    if data.draw(st.integers(0, 2)) == 0:
        raw = st.one_of(
            st.binary(max_size=20),
            st.floats().map(lambda number: struct.pack("<d", number)),
            st.just(struct.pack("<I", 6) + b"Boston"),
        )
        made.raw_input_contents.extend(data.draw(st.lists(raw, max_size=4)))
    made.outputs.extend(
        messages.ModelInferRequest.InferRequestedOutputTensor(name=name)
        for name in data.draw(st.lists(st.sampled_from(["probability", "", "nothing"]), max_size=2))
    )
    made.model_version = data.draw(st.sampled_from(["", "1", "9", "\0", "x" * 1_000]))
    check(caller.code("ModelInfer", made.SerializeToString()))


@FUZZED
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=5))
def test_a_changed_byte_is_the_callers_own_mistake(
    caller: Caller, changes: list[tuple[int, int]]
) -> None:
    sent = bytearray(request().SerializeToString())
    for place, byte in changes:
        sent[place % len(sent)] = byte
    check(caller.code("ModelInfer", bytes(sent)))


def test_methods_and_names_that_there_are_not(caller: Caller) -> None:
    assert caller.code("Nothing", b"")[0] is Code.UNIMPLEMENTED
    assert caller.code("../ModelInfer", b"")[0] is Code.UNIMPLEMENTED
    asked = messages.ModelMetadataRequest
    for name in ("../../etc/passwd", "trips\0", "trips/../trips", "", "x" * 1_000_000, "TRIPS"):
        code, details = caller.code("ModelMetadata", asked(name=name).SerializeToString())
        assert code is Code.NOT_FOUND
        assert len(details) < 300


def test_ten_thousand_columns_are_refused(caller: Caller) -> None:
    wide = request()
    for number in range(10_000):
        tensor = wide.inputs.add(name=f"c{number}", shape=[1], datatype="FP64")
        tensor.contents.fp64_contents.append(1.0)
    code, details = caller.code("ModelInfer", wide.SerializeToString())
    assert code is Code.INVALID_ARGUMENT
    assert "'c0': the model has no such column" in details
    long = request()
    long.inputs[0].shape.extend([-1] * 500_000)
    code, details = caller.code("ModelInfer", long.SerializeToString())
    assert (code, len(details) < 300) == (Code.INVALID_ARGUMENT, True)


def test_an_output_is_answered_once_however_often_it_is_asked_for(caller: Caller) -> None:
    greedy = request()
    for _ in range(100_000):
        greedy.outputs.add(name="probability")
    answer = caller.ask("ModelInfer", greedy.SerializeToString())
    assert len(messages.ModelInferResponse.FromString(answer).outputs) == 1


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_what_is_packed_is_read_within_bounds(
    caller: Caller, compression: grpc.Compression
) -> None:
    # Longer than without being packed, or it would not be.
    request_id = "x" * 5_000
    asked = request()
    asked.id = request_id
    answer = caller.ask("ModelInfer", asked.SerializeToString(), compression)
    assert messages.ModelInferResponse.FromString(answer).id == request_id
    code, details = caller.code("ModelInfer", bytes(100_000_000), compression)
    assert code is Code.RESOURCE_EXHAUSTED
    assert "larger than 8000000 bytes" in details
    bad = b"\xff" * 50_000
    assert caller.code("ModelInfer", bad, compression)[0] is Code.INVALID_ARGUMENT


def test_a_request_id_that_is_none_is_replaced(served: Served) -> None:
    channel = grpc.insecure_channel(served.grpc)
    ask = channel.unary_unary(f"/{SERVICE.full_name}/ServerLive")
    for given_id in ('{"level": "error"}', "a b", "x" * 5_000, "%0a", "ok-1"):
        _, call = ask.with_call(b"", metadata=(("x-request-id", given_id),), timeout=30)
        reported = dict(call.initial_metadata())["x-request-id"]
        assert (reported == given_id) == (given_id in {"ok-1", "%0a"})
    channel.close()


def test_a_message_that_does_not_come_is_not_waited_for(deployment: Deployment) -> None:
    with deployment.served(body_seconds=0.5) as served:
        caller, never = Caller(served.grpc), threading.Event()

        def nothing() -> Iterator[bytes]:
            never.wait(60)
            yield b""

        waiting = [caller.stream("ModelInfer").future(nothing(), timeout=60) for _ in range(20)]
        errors = [each.exception(60) for each in waiting]
        assert {error.code() for error in errors} == {Code.DEADLINE_EXCEEDED}
        assert {error.details() for error in errors} == {
            "the message did not arrive within 0.5 seconds"
        }
        never.set()
        assert caller.code("ModelInfer", request().SerializeToString()) == (Code.OK, "")
        caller.close()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


@pytest.mark.parametrize(
    ("sent", "dripped"),
    [(b"", b""), (b"P", b"R"), (PREFACE, b""), (PREFACE + SETTINGS, b""),
     (PREFACE + SETTINGS, SETTINGS[:1]), (b"GET / HTTP/1.1\r\n\r\n", b"")],
    ids=["silence", "bytes", "preface", "settings", "frames", "another protocol"],
)  # fmt: skip
def test_a_connection_that_nobody_speaks_on_is_closed(
    deployment: Deployment, sent: bytes, dripped: bytes
) -> None:
    with deployment.served(head_seconds=0.5) as served:
        assert is_closed_on(served.grpc, sent, dripped, pause=0.1)
