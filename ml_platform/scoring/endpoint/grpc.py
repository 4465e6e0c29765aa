"""The Open Inference Protocol, version 2, over gRPC: a column is a raw tensor of shape [n]."""

from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import grpc
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ml_platform.errors import EndpointRefused
from ml_platform.open_inference.inference_pb2 import ModelInferRequest, ModelInferResponse
from ml_platform.scoring.endpoint.answers import (
    SHOWN,
    Answered,
    TryAgain,
    answered_by,
    chosen,
    is_number,
    shaped,
)
from ml_platform.scoring.endpoint.tls import UNTRUSTED

Infer: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, ModelInferResponse]"
Metadata = tuple[tuple[str, str | bytes], ...]
METHOD = "/inference.GRPCInferenceService/ModelInfer"
RETRIED = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.ABORTED}
)
RETRY_AFTER = "retry-after"
"""Metadata after an answer with which our service says in seconds when to ask again."""
NUMBERS = {"FP64": ("<f8", "fp64_contents"), "FP32": ("<f4", "fp32_contents")}
"""Datatypes of predictions, how they are written raw, and where they are otherwise."""
LENGTH_BYTES = 4
Trust = tuple[bytes | None, bytes | None, bytes | None]
"""Authority, key and certificate as PEM, where there are any."""
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    # A proxy meant for the world outside would be asked for 127.0.0.1, too.
    ("grpc.enable_http_proxy", 0),
    # The breaker waits; a channel that waits by itself would not notice that a server is back.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class GrpcAsker:
    """Asks one model over gRPC."""

    def __init__(
        self,
        url: str,
        model: str,
        output: str,
        headers: Mapping[str, str],
        timeout_seconds: float,
        trust: Trust,
    ) -> None:
        self.where = f"{url}/{model}"
        self._model, self._output, self._timeout = model, output, timeout_seconds
        self._metadata: Metadata = tuple((name.lower(), value) for name, value in headers.items())
        self._channel = _channel(url, trust)
        self._infer: Infer = self._channel.unary_unary(
            METHOD, response_deserializer=ModelInferResponse.FromString
        )

    def pack(self, rows: pd.DataFrame) -> bytes:
        request = ModelInferRequest(model_name=self._model)
        for name in rows.columns:
            kind = "FP64" if is_number(rows, name) else "BYTES"
            tensor = request.inputs.add(name=name, datatype=kind, shape=[len(rows)])
            if kind == "BYTES":
                # MLServer would hand the model bytes: a category that it has never seen.
                tensor.parameters["content_type"].string_param = "str"
            values = rows[name].to_numpy()
            raw = values.astype("<f8").tobytes() if kind == "FP64" else _texts(name, values)
            request.raw_input_contents.append(raw)
        packed: bytes = request.SerializeToString(deterministic=True)
        return packed

    def ask(self, body: bytes) -> Answered:
        try:
            answer = self._infer(body, timeout=self._timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            raise _meant(error) from error
        outputs = {each.name: (place, each) for place, each in enumerate(answer.outputs)}
        place, output = chosen(outputs, self._output)
        if output.datatype not in NUMBERS:
            raise EndpointRefused(f"output '{output.name}' is {output.datatype[:20]}, not FP64")
        written, contents = NUMBERS[output.datatype]
        if answer.raw_output_contents:
            values = _unpacked(answer.raw_output_contents[place], written)
        else:
            values = np.array(getattr(output.contents, contents), dtype=np.float64)
        return answered_by(shaped(values, list(output.shape)), answer.model_version)

    def close(self) -> None:
        self._channel.close()


def _channel(url: str, trust: Trust) -> grpc.Channel:
    parts = urlsplit(url)
    if parts.scheme == "grpcs":
        return grpc.secure_channel(parts.netloc, grpc.ssl_channel_credentials(*trust), OPTIONS)
    return grpc.insecure_channel(parts.netloc, OPTIONS)


def _texts(name: str, values: NDArray[Any]) -> bytes:
    written = []
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise EndpointRefused(
                f"column '{name}' has no value in its row {row}, which a tensor of texts cannot "
                "say; ask the server over http"
            )
        text = value.encode()
        written.append(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    return b"".join(written)


def _unpacked(raw: bytes, written: str) -> NDArray[np.float64]:
    try:
        return np.frombuffer(raw, written).astype(np.float64)
    except ValueError:
        raise EndpointRefused(f"{len(raw)} bytes are not a whole number of tensor values") from None


def _meant(error: Any) -> Exception:
    """What a call that failed means for the request; error: the call, which is what is raised."""
    code, details = error.code(), error.details() or ""
    after = dict(error.trailing_metadata() or ()).get(RETRY_AFTER)
    said = f"{code.name}: {' '.join(details.split())[:SHOWN]}".rstrip(": ")
    # Who cannot be trusted now cannot be trusted in a minute either.
    if (code in RETRIED or after is not None) and UNTRUSTED not in details:
        return TryAgain(said, float(after) if after and str(after).isdecimal() else None)
    return EndpointRefused(said)
