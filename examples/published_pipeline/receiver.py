"""Software that is notified when runs have ended, and checks who notifies it."""

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "whsec_" + base64.b64encode(b"shared with the orchestrator").decode()


@dataclass(frozen=True)
class Call:
    """One call of the receiver."""

    path: str
    body: Any
    is_signed: bool
    """Whether the signature is that of the shared secret, over what was sent."""


@dataclass
class Receiver:
    """Software that is notified of the end of runs."""

    calls: list[Call] = field(default_factory=list)


@contextmanager
def receiver() -> Iterator[tuple[str, Receiver]]:
    """A server that notes what it is sent, and its address."""
    state = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            state.calls.append(Call(self.path, json.loads(body), is_signed(self.headers, body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        server.server_close()


def is_signed(headers: Any, body: bytes) -> bool:
    """What a receiver does to know that the service has called it; see Standard Webhooks."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    key = base64.b64decode(SECRET.removeprefix("whsec_"))
    mac = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    is_recent = abs(time.time() - int(headers["webhook-timestamp"])) < 300
    return is_recent and hmac.compare_digest(headers.get("webhook-signature", ""), f"v1,{mac}")
