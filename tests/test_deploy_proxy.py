"""The login in front of the UIs, on a real nginx; who has logged in is told by a stand-in.

oauth2-proxy cannot be installed here: a small server answers what nginx asks it, a yes with the
person's name and token for one cookie, and a no without it.
"""

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import InvalidURI
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from ml_platform.access import Grant, create_key
from tests.dagster_servers import UP_WITHIN_SECONDS, free_port, start, stop
from tests.served import deploy
from tests.trips_use_case import COMMIT

PROXY = Path(__file__).parent.parent / "deploy" / "proxy"
NGINX = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
UIS = ("dagster", "mlflow", "reports", "service")
SESSION = {"cookie": "_oauth2_proxy=ada"}
FORGED = {"x-forwarded-email": "eve@example.org", "x-auth-request-email": "eve@example.org",
          "authorization": "Bearer mlp_made_up"}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: str


@dataclass(frozen=True)
class Proxy:
    port: int
    tls: ssl.SSLContext
    log: Path

    @contextmanager
    def connected(self, name: str) -> Iterator[ssl.SSLSocket]:
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        with self.tls.wrap_socket(plain, server_hostname=f"{name}.ml.example.org") as safe:
            yield safe

    def ask(
        self, name: str, path: str = "/", headers: Mapping[str, str] | None = None,
        body: str | None = None,
    ) -> Answer:  # fmt: skip
        with self.connected(name) as safe:
            connection = http.client.HTTPConnection(f"{name}.ml.example.org")
            connection.sock = safe
            connection.request("POST" if body else "GET", path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {key.lower(): value for key, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read().decode(errors="replace"))


@contextmanager
def login(token: str) -> Iterator[int]:
    """Answers as oauth2-proxy does with `set_xauthrequest` and `set_authorization_header`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/oauth2/auth":
                self._answer(200, {}, b"log in here")
            elif self.headers["cookie"] == SESSION["cookie"]:
                said = {"X-Auth-Request-Email": "ada@example.org", "Set-Cookie": "renewed=1",
                        "Authorization": f"Bearer {token}"}  # fmt: skip
                self._answer(202, said, b"")
            else:
                self._answer(401, {}, b"")

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def configured(root: Path, port: int, behind: Mapping[int, int]) -> Path:
    """The files of `deploy/proxy` with the paths and ports of a test, in a whole configuration."""
    authority = trustme.CA()
    certificate = authority.issue_cert("*.ml.example.org")
    (root / "tls").mkdir()
    certificate.private_key_pem.write_to_path(root / "tls" / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(root / "tls" / "cert.pem", append=True)
    authority.cert_pem.write_to_path(root / "authority.pem")
    (root / "proxy").mkdir()
    for file in PROXY.glob("*.conf"):
        text = file.read_text().replace("/etc/ml-platform", str(root))
        text = text.replace("/var/log/nginx", str(root))
        text = text.replace("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;")
        for usual, now in behind.items():
            assert f"127.0.0.1:{usual};" in text or file.name != "nginx.conf", usual
            text = text.replace(f"127.0.0.1:{usual};", f"127.0.0.1:{now};")
        (root / "proxy" / file.name).write_text(text)
    places = "".join(
        f"  {kind}_temp_path {root}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    whole = root / "whole.conf"
    whole.write_text(
        f"daemon off;\nmaster_process off;\npid {root}/nginx.pid;\nerror_log {root}/error.log;\n"
        f"events {{}}\nhttp {{\n{places}  access_log off;\n"
        f"  include {root}/proxy/nginx.conf;\n}}\n"
    )
    return whole


def waited(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    until = time.monotonic() + UP_WITHIN_SECONDS
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"nothing listens: {log.read_text()}")


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    root = tmp_path_factory.mktemp("proxy")
    made = deploy(root / "deployment")
    made.promote(20)
    _, key = create_key(
        made.lake, "ada", [Grant("reader", "*")], created_by="ada", commit=COMMIT,
        expires_at=datetime.now(UTC) + timedelta(days=1),
    )  # fmt: skip
    bin_ = Path(sys.executable).parent
    ports = {name: free_port() for name in ("dagster", "mlflow", "reports", "nginx")}
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(made.settings.data),
        "ML_PLATFORM_USE_CASES": str(made.settings.use_cases),
        "DAGSTER_HOME": str(root / "home"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    (root / "home").mkdir()
    shutil.copy(PROXY.parent / "dagster.yaml", root / "home")
    local = ["--host", "127.0.0.1", "--port"]
    commands = {
        "dagster": [str(bin_ / "dagster-webserver"), "--empty-workspace", *local],
        "mlflow": [
            str(bin_ / "mlflow"), "server", "--workers", "1",
            "--backend-store-uri", f"sqlite:///{root}/mlflow.db",
            "--allowed-hosts", "mlflow.ml.example.org",
            "--cors-allowed-origins", "https://mlflow.ml.example.org", *local,
        ],
        "reports": [str(bin_ / "ml-platform"), "reports", "--port"],
    }  # fmt: skip
    with ExitStack() as ending:
        processes = {}
        for name, command in commands.items():
            log = root / f"{name}.log"
            processes[name] = start([*command, str(ports[name])], environment, log)
            ending.callback(stop, processes[name])
        served = ending.enter_context(made.served(authentication=True))
        asked = ending.enter_context(login(key))
        behind = {4180: asked, 3000: ports["dagster"], 5000: ports["mlflow"],
                  3001: ports["reports"], 8080: int(served.http.partition(":")[2])}  # fmt: skip
        whole = configured(root, ports["nginx"], behind)
        checked = subprocess.run(
            [str(NGINX), "-t", "-c", str(whole)], capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stderr
        assert "[warn]" not in checked.stderr, checked.stderr
        nginx = start([str(NGINX), "-c", str(whole)], environment, root / "nginx.log")
        ending.callback(stop, nginx)
        for name, process in {**processes, "nginx": nginx}.items():
            waited(ports[name], process, root / f"{name}.log")
        tls = ssl.create_default_context(cafile=root / "authority.pem")
        yield Proxy(ports["nginx"], tls, root / "ml-platform.log")
    made.lake.close()


@pytest.mark.parametrize("name", UIS)
def test_nobody_gets_on_without_a_login(proxy: Proxy, name: str) -> None:
    for headers in ({}, FORGED, {"cookie": "_oauth2_proxy=eve"}):
        for path in ("/", "/graphql", "/metrics", "/static/x", "//", "/oauth2/authx"):
            answer = proxy.ask(name, path, headers)
            assert answer.status == 302, (path, answer)
            there = answer.headers["location"]
            assert there.startswith("https://login.ml.example.org/oauth2/start?rd=https://")
            assert f"https://{name}.ml.example.org" in there
        assert proxy.ask(name, "/graphql", headers, body="{}").status == 302
    # Nor does anybody get to ask oauth2-proxy through it.
    assert proxy.ask(name, "/oauth2/auth", SESSION).status == 404


def test_the_login_itself_is_open(proxy: Proxy) -> None:
    assert proxy.ask("login", "/oauth2/start").body == "log in here"


def test_dagster_is_reached_after_the_login(proxy: Proxy) -> None:
    page = proxy.ask("dagster", "/", SESSION)
    assert page.status == 200
    assert "<title>Dagster" in page.body or "dagster" in page.body.lower()
    # What oauth2-proxy has renewed arrives in the browser.
    assert page.headers["set-cookie"] == "renewed=1"
    asked = {**SESSION, "content-type": "application/json"}
    version = proxy.ask("dagster", "/graphql", asked, body=json.dumps({"query": "{ version }"}))
    assert json.loads(version.body)["data"]["version"].startswith("1.")


def test_dagsters_pages_follow_over_a_websocket(proxy: Proxy) -> None:
    # `ws`, since the socket that is handed over speaks TLS already.
    address = "ws://dagster.ml.example.org/graphql"
    kind = [Subprotocol("graphql-ws")]
    with (
        proxy.connected("dagster") as safe,
        connect(address, sock=safe, subprotocols=kind, additional_headers=SESSION) as pages,
    ):
        pages.send(json.dumps({"type": "connection_init"}))
        assert json.loads(pages.recv(60))["type"] == "connection_ack"
    with (
        proxy.connected("dagster") as safe,
        # It is sent to the login, as pages are, and that is no WebSocket.
        pytest.raises(InvalidURI, match=r"https://login\.ml\.example\.org/oauth2/start"),
        connect(address, sock=safe, subprotocols=kind, additional_headers=FORGED),
    ):
        pass


def test_mlflow_is_reached_after_the_login(proxy: Proxy) -> None:
    assert "MLflow" in proxy.ask("mlflow", "/", SESSION).body
    path = "/ajax-api/2.0/mlflow/experiments/search"
    asked = {**SESSION, "content-type": "application/json",
             "origin": "https://mlflow.ml.example.org"}  # fmt: skip
    found = proxy.ask("mlflow", path, asked, body=json.dumps({"max_results": 5}))
    assert found.status == 200, found
    assert json.loads(found.body)["experiments"][0]["name"] == "Default"
    # Another page cannot use the login of whoever looks at it.
    elsewhere = {**asked, "origin": "https://evil.example.org"}
    assert proxy.ask("mlflow", path, elsewhere, body='{"max_results": 5}').status == 403


def test_drift_pages_are_reached_after_the_login(proxy: Proxy) -> None:
    assert "trips" in proxy.ask("reports", "/", SESSION).body


def test_the_service_is_asked_with_the_token_of_whoever_logged_in(proxy: Proxy) -> None:
    page = proxy.ask("service", "/status/trips", {**SESSION, **FORGED})
    assert page.status == 200, page
    assert json.loads(page.body)["use_case"] == "trips"
    # A reader reads: the service tells roles apart, and nobody brings a key of their own.
    body = json.dumps({"rows": []})
    assert proxy.ask("service", "/predict/trips", SESSION, body=body).status == 403


def test_the_proxys_log_says_who_asked_for_what(proxy: Proxy) -> None:
    proxy.ask("dagster", "/runs?who", {**SESSION, **FORGED})
    proxy.ask("dagster", "/runs?nobody", FORGED)
    lines = proxy.log.read_text().splitlines()
    (known,) = [line for line in lines if "/runs?who" in line]
    assert '"ada@example.org" dagster.ml.example.org' in known
    (unknown,) = [line for line in lines if "/runs?nobody" in line]
    assert '"" dagster.ml.example.org' in unknown or '"-" dagster.ml.example.org' in unknown
