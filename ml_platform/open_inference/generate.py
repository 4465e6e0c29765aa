"""Generates the modules of `inference.proto` with the compiler of grpcio-tools: `make protos`."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROTO = Path(__file__).with_name("inference.proto").relative_to(ROOT)
SHARED, OWN = "_descriptor_pool.Default()", "_descriptor_pool.DescriptorPool()"


def generate(folder: Path) -> list[Path]:
    """Write the modules below a folder that stands for the root of the repository."""
    from grpc_tools import protoc

    arguments = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    if protoc.main(["protoc", f"-I{ROOT}", *arguments, str(PROTO)]):
        raise SystemExit(f"{PROTO} was not compiled")
    stem = folder / PROTO.with_suffix("")
    found = [stem.with_name(f"{stem.name}{end}") for end in ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")]
    # Clients of the protocol, as tritonclient, bring messages of the same names into the pool that
    # a process shares; whichever of the two came second would not be imported.
    messages = found[0].read_text()
    if messages.count(SHARED) != 1:
        raise SystemExit(f"{found[0]} does not name its descriptor pool once")
    found[0].write_text(messages.replace(SHARED, OWN))
    return found


if __name__ == "__main__":
    for written in generate(ROOT):
        sys.stdout.write(f"{written.relative_to(ROOT)}\n")
