"""Messages of the Open Inference Protocol, version 2, as its specification numbers them.

They are described here and not generated, so that there is one source, readable, and no code that
fits one release of protobuf only.
"""

from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE = "inference"
SERVICE = f"{PACKAGE}.GRPCInferenceService"

# Name, type; numbers count from 1. `[]` repeats, `{}` maps from text.
_PARAMETERS = ("parameters", "{}InferParameter")
_CONTENTS = ("contents", "InferTensorContents")
_TENSOR = (("name", "string"), ("datatype", "string"), ("shape", "[]int64"))
_MODEL = (("name", "string"), ("version", "string"))
MESSAGES: dict[str, tuple[tuple[str, str], ...]] = {
    "ServerLiveRequest": (),
    "ServerLiveResponse": (("live", "bool"),),
    "ServerReadyRequest": (),
    "ServerReadyResponse": (("ready", "bool"),),
    "ModelReadyRequest": _MODEL,
    "ModelReadyResponse": (("ready", "bool"),),
    "ServerMetadataRequest": (),
    "ServerMetadataResponse": (*_MODEL, ("extensions", "[]string")),
    "ModelMetadataRequest": _MODEL,
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        ("name", "string"),
        ("versions", "[]string"),
        ("platform", "string"),
        ("inputs", "[]TensorMetadata"),
        ("outputs", "[]TensorMetadata"),
    ),
    # One of five, told apart by their numbers.
    "InferParameter": (
        ("bool_param", "bool"),
        ("int64_param", "int64"),
        ("string_param", "string"),
        ("double_param", "double"),
        ("uint64_param", "uint64"),
    ),
    "InferTensorContents": (
        ("bool_contents", "[]bool"),
        ("int_contents", "[]int32"),
        ("int64_contents", "[]int64"),
        ("uint_contents", "[]uint32"),
        ("uint64_contents", "[]uint64"),
        ("fp32_contents", "[]float"),
        ("fp64_contents", "[]double"),
        ("bytes_contents", "[]bytes"),
    ),
    "InferInputTensor": (*_TENSOR, _PARAMETERS, _CONTENTS),
    "InferRequestedOutputTensor": (("name", "string"), _PARAMETERS),
    "ModelInferRequest": (
        ("model_name", "string"),
        ("model_version", "string"),
        ("id", "string"),
        _PARAMETERS,
        ("inputs", "[]InferInputTensor"),
        ("outputs", "[]InferRequestedOutputTensor"),
        ("raw_input_contents", "[]bytes"),
    ),
    "InferOutputTensor": (*_TENSOR, _PARAMETERS, _CONTENTS),
    "ModelInferResponse": (
        ("model_name", "string"),
        ("model_version", "string"),
        ("id", "string"),
        _PARAMETERS,
        ("outputs", "[]InferOutputTensor"),
        ("raw_output_contents", "[]bytes"),
    ),
}
METHODS = (
    "ServerLive", "ServerReady", "ModelReady", "ServerMetadata", "ModelMetadata", "ModelInfer",
)  # fmt: skip

Field = descriptor_pb2.FieldDescriptorProto


def message_class(name: str) -> Any:
    """The class of a message, by its name in the specification."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _file() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="open_inference.proto", package=PACKAGE, syntax="proto3"
    )
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        if name == "InferParameter":
            message.oneof_decl.add(name="parameter_choice")
        for number, (field, kind) in enumerate(fields, start=1):
            added = message.field.add(name=field, number=number)
            _describe(added, kind, message)
            if name == "InferParameter":
                added.oneof_index = 0
    return file


def _describe(field: Field, kind: str, message: descriptor_pb2.DescriptorProto) -> None:
    repeated = kind.startswith(("[]", "{}"))
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if kind.startswith("{}"):
        entry = message.nested_type.add(name=f"{field.name.title()}Entry")
        entry.options.map_entry = True
        _describe(entry.field.add(name="key", number=1), "string", entry)
        _describe(entry.field.add(name="value", number=2), kind[2:], entry)
        field.type = Field.TYPE_MESSAGE
        field.type_name = f".{PACKAGE}.{message.name}.{entry.name}"
        return
    plain = kind.removeprefix("[]")
    if plain in MESSAGES:
        field.type, field.type_name = Field.TYPE_MESSAGE, f".{PACKAGE}.{plain}"
    else:
        field.type = Field.Type.Value(f"TYPE_{plain.upper()}")


def _filled() -> descriptor_pool.DescriptorPool:
    # A pool of its own: clients in the same process bring these messages under the same names.
    pool = descriptor_pool.DescriptorPool()
    pool.Add(_file())
    return pool


_POOL = _filled()


def methods() -> Iterator[tuple[str, Any, Any]]:
    """Name, class of the request, class of the response."""
    for name in METHODS:
        yield name, message_class(f"{name}Request"), message_class(f"{name}Response")
