"""Traces of requests, as a collector that speaks OTLP over HTTP gets them."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from ml_platform.errors import ServingMisconfigured
from ml_platform.features import open_online_store, publish
from ml_platform.serving.tracing import (
    MOST_SPANS,
    SENT_TOGETHER,
    TRACE,
    open_tracing,
    traced,
)
from ml_platform.spec.loading import load_use_case
from tests.otlp_receiver import attributes, receiving
from tests.served import ROW, Deployment, deploy, serving_settings
from tests.trips_use_case import days

pytestmark = pytest.mark.slow

INVOKE = "/mlflow/trips/invocations"
ROUTE = "POST /mlflow/{model}/invocations"
GOOD = {"dataframe_records": [ROW]}
BAD = {"dataframe_records": [{**ROW, "distance": "far"}]}
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE_ID}-{SPAN_ID}-{flag}" for flag in ("01", "00"))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy(tmp_path_factory.mktemp("traced"))
    spec = made.use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text() + "serving: {log: {}}\n")
    case = load_use_case(made.use_case.folder)
    made = Deployment(made.root, made.settings, made.lake, made.registry, case)
    made.promote(20)
    store = open_online_store(made.settings)
    publish(made.lake, store, case, "pace", days(28, 30))
    store.close()
    yield made
    made.lake.close()


def example() -> dict[str, object]:
    return {"trip": 1, "city": "Boston", "distance": 21.5,
            "started_at": "2024-03-30T12:00:00Z"}  # fmt: skip


def parts_of(span: Span, spans: list[Span]) -> list[str]:
    children = [each for each in spans if each.parent_span_id == span.span_id]
    assert {each.trace_id for each in children} <= {span.trace_id}
    for each in children:
        assert span.start_time_unix_nano <= each.start_time_unix_nano
        assert each.start_time_unix_nano <= each.end_time_unix_nano <= span.end_time_unix_nano
    return [each.name for each in sorted(children, key=lambda s: s.start_time_unix_nano)]


def test_a_request_is_a_span_with_its_parts_under_the_callers_trace(
    deployment: Deployment,
) -> None:
    with receiving() as receiver:
        with deployment.client(otlp_endpoint=receiver.address, trace_ratio=0.0) as client:
            headers = {"traceparent": SAMPLED, "X-Request-Id": "order-7"}
            assert client.post(INVOKE, json=GOOD, headers=headers).status_code == 200
        (span,) = receiver.named(ROUTE)
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, SPAN_ID)
    assert span.kind == Span.SPAN_KIND_SERVER
    said = attributes(span)
    assert said["http.request.method"] == "POST"
    assert said["http.route"] == "/mlflow/{model}/invocations"
    assert said["http.response.status_code"] == 200
    assert said["url.path"] == INVOKE
    assert said["ml_platform.request_id"] == "order-7"
    assert said["ml_platform.use_case"] == "trips"
    assert said["ml_platform.model_version"] == 1
    assert parts_of(span, receiver.spans) == ["check inputs", "predict", "log"]
    assert attributes(receiver.named("predict")[0])["ml_platform.batch_rows"] == 1
    assert receiver.resources[0]["service.name"] == "ml-platform"


def test_requests_that_are_predicted_together_each_have_the_span_of_the_whole() -> None:
    callers = {TRACE_ID: SPAN_ID, TRACE_ID[::-1]: SPAN_ID[::-1]}
    with receiving() as receiver, contextlib.ExitStack() as open_requests:
        tracing = open_tracing(serving_settings(otlp_endpoint=receiver.address, trace_ratio=0.0))
        assert tracing is not None
        traces = [
            open_requests.enter_context(
                tracing.request([("traceparent", f"00-{trace_id}-{span_id}-01")], trace_id)
            )
            for trace_id, span_id in callers.items()
        ]
        with traced("predict", [traces[0], None, traces[1]], rows=3):
            pass
        open_requests.close()
        tracing.close()
    parts = receiver.named("predict")
    assert len({(part.start_time_unix_nano, part.end_time_unix_nano) for part in parts}) == 1
    assert [attributes(part)["ml_platform.batch_rows"] for part in parts] == [3, 3]
    for part, (trace_id, span_id) in zip(parts, callers.items(), strict=True):
        (whole,) = [span for span in receiver.spans if span.span_id == part.parent_span_id]
        assert part.trace_id.hex() == whole.trace_id.hex() == trace_id
        assert whole.parent_span_id.hex() == span_id


def test_rows_by_key_are_looked_up_in_a_span_of_its_own(deployment: Deployment) -> None:
    with receiving() as receiver:
        with deployment.client(otlp_endpoint=f"{receiver.address}/", trace_ratio=1.0) as client:
            answer = client.post("/predict/trips", json={"rows": [example()]})
            assert answer.status_code == 200, answer.text
        (span,) = receiver.named("POST /predict/{model}")
    assert not span.parent_span_id
    assert parts_of(span, receiver.spans) == ["check inputs", "look up", "predict", "log"]


def test_a_mistake_of_the_caller_is_no_error_of_the_service(deployment: Deployment) -> None:
    with receiving() as receiver:
        with deployment.client(otlp_endpoint=receiver.address, trace_ratio=1.0) as client:
            assert client.post(INVOKE, json=BAD).status_code == 400
            assert client.request("BREW", "/nothing").status_code in {404, 405}
        (span,) = receiver.named(ROUTE)
        (check,) = receiver.named("check inputs")
        (other,) = receiver.named("HTTP")
    assert attributes(span)["http.response.status_code"] == 400
    assert span.status.code == Status.STATUS_CODE_UNSET
    assert attributes(check)["error.type"] == "RequestRefused"
    assert check.status.code == Status.STATUS_CODE_ERROR
    # A path that a caller makes up names no span.
    assert "http.route" not in attributes(other)
    assert attributes(other)["http.request.method"] == "_OTHER"


def test_lines_of_the_log_have_the_trace_recorded_or_not(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        receiving() as receiver,
        deployment.client(
            otlp_endpoint=receiver.address, trace_ratio=1.0, log_requests="all"
        ) as client,
    ):
        client.post(INVOKE, json=GOOD, headers={"traceparent": NOT_SAMPLED})
        client.post(INVOKE, json=GOOD, headers={"traceparent": "no trace at all"})
        client.get("/health/live")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines() if line[:1] == "{"]
    asked = [line for line in lines if line.get("path") == INVOKE]
    (span,) = receiver.named(ROUTE)
    # The caller said that the first is not to be recorded; the second began a trace here.
    assert [line["trace_id"] for line in asked] == [TRACE_ID, span.trace_id.hex()]
    assert attributes(span)["ml_platform.request_id"] == asked[1]["request_id"]
    assert {span.name for span in receiver.spans} == {ROUTE, "check inputs", "predict", "log"}


def test_grpc_is_traced_alike(deployment: Deployment) -> None:
    inputs = []
    for name, value in ROW.items():
        text = isinstance(value, str)
        tensor = tritonclient.grpc.InferInput(name, [1], "BYTES" if text else "FP64")
        tensor.set_data_from_numpy(np.array([value], dtype=object if text else np.float64))
        inputs.append(tensor)
    with receiving() as receiver:
        with deployment.served(otlp_endpoint=receiver.address, trace_ratio=0.0) as served:
            client = tritonclient.grpc.InferenceServerClient(served.grpc)
            headers = {"traceparent": SAMPLED, "x-request-id": "order-8"}
            client.infer("trips", inputs, headers=headers)
            with pytest.raises(tritonclient.grpc.InferenceServerException):
                client.infer("trips", inputs[:1], headers=headers)
            client.is_server_live(headers=headers)
            client.close()
        good, bad = receiver.named("inference.GRPCInferenceService/ModelInfer")
    assert good.trace_id.hex() == TRACE_ID
    said = attributes(good)
    assert said["rpc.system.name"] == "grpc"
    assert said["rpc.method"] == good.name
    assert said["rpc.response.status_code"] == "OK"
    assert said["client.address"] == "127.0.0.1"
    assert said["ml_platform.request_id"] == "order-8"
    assert (said["ml_platform.use_case"], said["ml_platform.model_version"]) == ("trips", 1)
    assert parts_of(good, receiver.spans) == ["check inputs", "predict", "log"]
    assert attributes(bad)["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert bad.status.code == Status.STATUS_CODE_UNSET


def test_a_collector_that_is_unavailable_fails_no_request(deployment: Deployment) -> None:
    with socket.socket() as taken:
        # Bound and not listening: nobody else gets the port, and nobody answers there.
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with deployment.client(otlp_endpoint=address, trace_ratio=1.0) as client:
            answers = [client.post(INVOKE, json=GOOD).status_code for _ in range(20)]
    assert answers == [200] * 20


def test_a_collector_that_hangs_fails_no_request_and_keeps_nothing_from_ending(
    deployment: Deployment,
) -> None:
    with receiving(held=threading.Event()) as receiver:
        with deployment.client(otlp_endpoint=receiver.address, trace_ratio=1.0) as client:
            answers = [client.post(INVOKE, json=GOOD).status_code for _ in range(20)]
        # It was still holding what it had been sent as the service ended.
        assert receiver.spans == []
    assert answers == [200] * 20


def test_what_waits_for_the_collector_is_bounded() -> None:
    held = threading.Event()
    with receiving(held) as receiver:
        settings = serving_settings(otlp_endpoint=receiver.address, trace_ratio=1.0)
        tracing = open_tracing(settings)
        assert tracing is not None
        for number in range(2 * MOST_SPANS):
            with tracing.request((), f"{number}") as trace:
                assert TRACE.get() is trace is not None
        # Batches that were not answered in time, on a machine that is slow.
        given_up = len(receiver.spans)
        held.set()
        tracing.close()
    # Besides what waits, one batch was on its way.
    assert 0 < len(receiver.spans) <= given_up + MOST_SPANS + SENT_TOGETHER
    assert len(receiver.spans) < 2 * MOST_SPANS
    assert TRACE.get() is None


def test_without_the_setting_nothing_is_traced_or_imported(deployment: Deployment) -> None:
    assert open_tracing(serving_settings()) is None
    with traced("predict", [None, None], rows=2):
        pass
    asked = (
        "import sys; from ml_platform.serving import worker, service;"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", asked], check=False).returncode == 0


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(ServingMisconfigured, match="install the extra `otel`"):
        open_tracing(serving_settings(otlp_endpoint="http://127.0.0.1:4318"))
