"""A server in front of a model server: it counts what passes, and can refuse, fail or swap."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx


@dataclass(frozen=True)
class Said:
    """An answer of the front itself."""

    status: int
    body: bytes = b'{"detail": "not now"}'
    headers: dict[str, str] = field(default_factory=dict)


Rule = Callable[[int, bytes], Said | None]
"""What becomes of a request, by its number from 0 and its body; None lets it pass."""


@dataclass
class Front:
    """What passed, and what is to become of what comes."""

    backend: str
    address: str = ""
    rule: Rule = lambda number, body: None
    asked: list[bytes] = field(default_factory=list)
    """Bodies of all requests."""
    passed: list[bytes] = field(default_factory=list)
    """Bodies of those that the server behind it answered."""
    headers: list[dict[str, str]] = field(default_factory=list)
    came_at: list[float] = field(default_factory=list)
    """When each request came, by the monotonic clock."""
    gone_at: list[float] = field(default_factory=list)
    """When each was answered."""
    most_at_once: int = 0
    _now: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def counted(self, body: bytes, headers: dict[str, str]) -> Iterator[int]:
        with self._lock:
            number = len(self.asked)
            self.asked.append(body)
            self.came_at.append(time.monotonic())
            self.headers.append(headers)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            yield number
        finally:
            with self._lock:
                self._now -= 1
                self.gone_at.append(time.monotonic())

    def answer(self, path: str, body: bytes, number: int) -> Said:
        if said := self.rule(number, body):
            return said
        answered = httpx.post(f"http://{self.backend}{path}", content=body, headers=JSON,
                              trust_env=False, timeout=60)  # fmt: skip
        if answered.status_code == 200:
            self.passed.append(body)
        kept = {k: v for k, v in answered.headers.items() if k.startswith("x-model")}
        return Said(answered.status_code, answered.content, kept)


JSON = {"content-type": "application/json"}


@contextmanager
def front_of(backend: str) -> Iterator[Front]:
    """A front on a free port of this machine; backend: `host:port` behind it."""
    front = Front(backend)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            with front.counted(body, dict(self.headers.items())) as number:
                said = front.answer(self.path, body, number)
            if said.status == 0:
                # The connection breaks off without an answer.
                self.close_connection = True
                return
            self.send_response(said.status)
            for name, value in {**JSON, **said.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(said.body)))
            self.end_headers()
            self.wfile.write(said.body)

        def do_GET(self) -> None:
            answered = httpx.get(f"http://{backend}{self.path}", trust_env=False, timeout=60)
            self.send_response(answered.status_code)
            self.send_header("content-length", str(len(answered.content)))
            self.end_headers()
            self.wfile.write(answered.content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    front.address = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
