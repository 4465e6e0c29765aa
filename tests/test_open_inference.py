"""The protocol's messages: the protocol's own, and what the compiler makes of `inference.proto`."""

import re
import tomllib
from pathlib import Path

import pytest
import tritonclient.grpc.service_pb2 as tritons
from google.protobuf.descriptor_pb2 import DescriptorProto
from packaging.requirements import Requirement
from packaging.version import Version

from ml_platform.open_inference import inference_pb2, inference_pb2_grpc
from ml_platform.open_inference.generate import ROOT, generate

(SERVICE,) = inference_pb2.DESCRIPTOR.services_by_name.values()
(TRITONS,) = tritons.DESCRIPTOR.services_by_name.values()


@pytest.mark.parametrize("name", inference_pb2.DESCRIPTOR.message_types_by_name)
def test_messages_are_those_of_tritons_client(name: str) -> None:
    ours, theirs = DescriptorProto(), DescriptorProto()
    inference_pb2.DESCRIPTOR.message_types_by_name[name].CopyToProto(ours)
    tritons.DESCRIPTOR.message_types_by_name[name].CopyToProto(theirs)
    assert ours == theirs


@pytest.mark.parametrize("name", SERVICE.methods_by_name)
def test_methods_are_those_of_tritons_client(name: str) -> None:
    ours, theirs = SERVICE.methods_by_name[name], TRITONS.methods_by_name[name]
    assert ours.full_name == theirs.full_name
    assert ours.input_type.full_name == theirs.input_type.full_name
    assert ours.output_type.full_name == theirs.output_type.full_name
    assert theirs.client_streaming is theirs.server_streaming is False


def test_modules_are_what_the_compiler_makes_now(tmp_path: Path) -> None:
    made = {path.relative_to(tmp_path): path.read_text() for path in generate(tmp_path)}
    assert len(made) == 3
    for path, text in made.items():
        assert (ROOT / path).read_text() == text, "run `make protos`"


def test_the_oldest_packages_that_are_allowed_are_not_older_than_the_modules() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = project["optional-dependencies"]["serve"]
    allowed = {each.name: each.specifier for each in map(Requirement, needed)}
    lowest = {
        name: min(Version(each.version) for each in allowed[name] if each.operator == ">=")
        for name in ("grpcio", "protobuf")
    }
    written = re.search(r"Python Version: (\S+)", Path(str(inference_pb2.__file__)).read_text())
    assert written is not None
    assert lowest["protobuf"] >= Version(written[1])
    assert lowest["grpcio"] >= Version(inference_pb2_grpc.GRPC_GENERATED_VERSION)
