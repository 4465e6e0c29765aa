"""A client of a server under test: as many requests as it can, over connections that stay open.

`python -m benchmarks.load PLAN` with a JSON file; prints the seconds that each request took.
"""

import asyncio
import base64
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import grpc.aio

LENGTH = b"content-length:"
METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class LoadPlan:
    """What one client process does."""

    host: str
    port: int
    path: str
    """Of HTTP; empty for gRPC."""
    bodies: list[str]
    """In base64; sent in turns."""
    clients: int
    seconds: float

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")


async def _http(plan: LoadPlan, place: int, until: float, took: list[float]) -> None:
    reader, writer = await asyncio.open_connection(plan.host, plan.port)
    requests = [
        f"POST {plan.path} HTTP/1.1\r\nhost: {plan.host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
        for body in map(base64.b64decode, plan.bodies)
    ]
    number = place
    while (started := perf_counter()) < until:
        writer.write(requests[number % len(requests)])
        number += 1
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{plan.path}: {head[:200]!r}")
        begin = head.lower().index(LENGTH) + len(LENGTH)
        await reader.readexactly(int(head[begin : head.index(b"\r", begin)]))
        took.append(perf_counter() - started)
    writer.close()
    await writer.wait_closed()


async def _grpc(plan: LoadPlan, place: int, until: float, took: list[float]) -> None:
    # Each client has a connection of its own; channels of one process share one otherwise.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"{plan.host}:{plan.port}", options) as channel:
        call = channel.unary_unary(METHOD)
        bodies = [base64.b64decode(body) for body in plan.bodies]
        number = place
        while (started := perf_counter()) < until:
            await call(bodies[number % len(bodies)])
            number += 1
            took.append(perf_counter() - started)


async def _run(plan: LoadPlan) -> list[float]:
    took: list[float] = []
    until = perf_counter() + plan.seconds
    ask = _http if plan.path else _grpc
    await asyncio.gather(*(ask(plan, place, until, took) for place in range(plan.clients)))
    return took


if __name__ == "__main__":
    asked = LoadPlan(**json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    print(json.dumps(asyncio.run(_run(asked))))
