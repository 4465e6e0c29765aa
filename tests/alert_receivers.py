"""Real receivers of alerts on this machine: a web server and a mail server."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller


class WebReceiver:
    """Keeps what is posted to it; answers 500 for as many posts as `refuse` says."""

    def __init__(self, port: int, refuse: int) -> None:
        self.refuse = refuse
        self.posts = 0
        self.received: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with receiver.lock:
                    receiver.posts += 1
                    refused = receiver.posts <= receiver.refuse
                    if not refused:
                        receiver.received.append(body)
                self.send_response(500 if refused else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.server.server_port}/hook/s3cr3t"

    @property
    def titles(self) -> list[str]:
        return [post["title"] for post in self.received]


@contextmanager
def web_receiver(port: int = 0, refuse: int = 0) -> Iterator[WebReceiver]:
    receiver = WebReceiver(port, refuse)
    thread = threading.Thread(
        target=receiver.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    )
    thread.start()
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()
        thread.join()


class MailReceiver:
    """Keeps the mails that are handed to it."""

    def __init__(self) -> None:
        self.mails: list[Message] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802
        self.mails.append(message_from_bytes(envelope.content))
        return "250 OK"


@contextmanager
def mail_receiver(port: int) -> Iterator[MailReceiver]:
    receiver = MailReceiver()
    controller = Controller(receiver, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield receiver
    finally:
        controller.stop()
