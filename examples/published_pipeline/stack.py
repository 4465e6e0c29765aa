"""What the example needs, as processes of this machine.

Storage, Dagster with a use case at two commits, the service, a receiver of callbacks. All of them
listen on 127.0.0.1, and end with the `with` block.
"""

import base64
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ml_platform.settings import Settings

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CURRENT, KEPT = "ml-platform", "ml-platform-kept"
"""Names of the code locations; Dagster takes the first by name for what is asked of none."""
SECRET = "whsec_" + base64.b64encode(b"shared with the orchestrator").decode()
ADDED_LATER = "      sample: {least: 0.2}\n"
"""Line of the use case that the earlier commit lacks."""
UP_WITHIN_SECONDS = 400
ACCOUNT = "devstoreaccount1"
# Known to everybody: that of the emulator.
ACCOUNT_KEY = (
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)


@dataclass
class Stack:
    """Addresses of what runs."""

    root: Path
    service: "Service"
    dagster_url: str
    receiver_url: str
    environment: dict[str, str]
    """Of the service and of the current code location."""
    earlier: str
    current: str
    """Commits of the use case."""
    calls: list["Call"]
    """What the receiver was told, in order."""

    @property
    def url(self) -> str:
        """Of the service."""
        return self.service.url

    @property
    def settings(self) -> Settings:
        """Those of the deployment."""
        named = {k: v for k, v in self.environment.items() if k.startswith("ML_PLATFORM_")}
        with patch.dict(os.environ, named):
            return Settings()

    def ask(
        self, path: str, body: Any = None, key: str | None = None, method: str | None = None
    ) -> tuple[int, Any]:
        """Status and answer of a request; with a body it is a POST."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} | ({"Idempotency-Key": key} if key else {})
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def follow(self, path: str) -> Any:
        """A run, once it is over."""
        return until(lambda: (run := self.ask(path)[1]["run"])["is_over"] and run, path)


@dataclass(frozen=True)
class Call:
    """One call of the receiver."""

    path: str
    body: Any
    is_signed: bool
    """Whether the signature is that of the shared secret, over what was sent."""


@dataclass
class Receiver:
    """Software that is told of the end of runs."""

    calls: list[Call] = field(default_factory=list)


@contextmanager
def stack(
    root: Path, locations: tuple[str, str] = (CURRENT, KEPT), **variables: str
) -> Iterator[Stack]:
    """The whole of it below a folder.

    locations: names of the current code location and of the one that keeps the earlier commit.
    variables: settings of the deployment, by their names.
    """
    with ExitStack() as opened:
        url, calls = opened.enter_context(receiver())
        environment = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "ML_PLATFORM_DATA": str(root / "data"),
            "ML_PLATFORM_USE_CASES": str(root / "repository" / "use_cases"),
            "ML_PLATFORM_DAGSTER_URL": f"http://127.0.0.1:{free_port()}",
            "ML_PLATFORM_SERVING_PORT": str(free_port()),
            "ML_PLATFORM_SERVING_GRPC_PORT": "0",
            "ML_PLATFORM_SERVING_WORKERS": "1",
            "ML_PLATFORM_SERVING_CALLBACKS": json.dumps(
                {"orchestrator": {"url": f"{url}/runs", "secret": SECRET}}
            ),
            "ML_PLATFORM_SERVING_CALLBACK_URIS": f"{url}/workflows/",
            "DAGSTER_HOME": str(root / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "DO_NOT_TRACK": "1",
            **storage(root, opened),
            **variables,
        }
        (root / "dagster").mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / "dagster.yaml", root / "dagster")
        earlier, current = commit_twice(root / "repository", root / "kept")
        kept = {
            "ML_PLATFORM_USE_CASES": str(root / "kept" / "use_cases"),
            "ML_PLATFORM_KEPT_VERSION": "true",
        }
        servers = zip(locations, (environment, {**environment, **kept}), strict=True)
        start_dagster(root, dict(servers), opened)
        service = Service(root, environment)
        service.start()
        opened.callback(service.stop)
        yield Stack(
            root, service, environment["ML_PLATFORM_DAGSTER_URL"], url, environment, earlier,
            current, calls.calls,
        )  # fmt: skip


def storage(root: Path, opened: ExitStack) -> dict[str, str]:
    """Settings of the lake's files and of landing: on Azurite, where that is installed."""
    program = shutil.which("azurite-blob")
    if program is None:
        return {}
    port = free_port()
    place = f"http://127.0.0.1:{port}/{ACCOUNT}"
    # DuckDB's client may speak a newer version than the emulator knows.
    command = [
        program,
        "--blobHost",
        "127.0.0.1",
        "--blobPort",
        str(port),
        "--silent",
        "--location",
        str(root / "azurite"),
        "--disableTelemetry",
        "--skipApiVersionCheck",
    ]
    log = root / "azurite.log"
    opened.enter_context(running(command, dict(os.environ), log, lambda: accepts(port)))
    for container in ("lake", "landing"):
        create_container(place, container)
    connection = (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={ACCOUNT_KEY};"
        f"BlobEndpoint={place}"
    )
    return {
        "ML_PLATFORM_EXTENSIONS": "azure",
        "ML_PLATFORM_SECRETS_SQL": f"CREATE SECRET (TYPE azure, CONNECTION_STRING '{connection}')",
        "ML_PLATFORM_LAKE_FILES": "az://lake/files/",
        "ML_PLATFORM_LANDING": "az://landing",
    }


def create_container(place: str, container: str) -> None:
    """As the portal does it; the request is signed with the account's key."""
    stamps = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    lines = "".join(f"{name}:{value}\n" for name, value in stamps.items())
    signed = f"PUT{12 * chr(10)}{lines}/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    mac = hmac.new(base64.b64decode(ACCOUNT_KEY), signed.encode(), hashlib.sha256).digest()
    headers = {**stamps, "Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"}
    url = f"{place}/{container}?restype=container"
    request = urllib.request.Request(url, method="PUT", headers=headers)
    with urllib.request.urlopen(request, timeout=30):
        pass


def commit_twice(repository: Path, kept: Path) -> tuple[str, str]:
    """A repository with the use case at two commits, and the earlier one checked out beside it."""
    shutil.copytree(HERE / "use_cases", repository / "use_cases")
    spec = repository / "use_cases" / "parcels" / "use_case.yaml"
    text = spec.read_text()
    spec.write_text(text.replace(ADDED_LATER, ""))
    git(repository, "init", "--quiet")
    earlier = commit(repository, "Publish the pipelines")
    spec.write_text(text)
    current = commit(repository, "Let callers choose a sample")
    git(repository, "worktree", "add", "--quiet", str(kept), earlier)
    return earlier, current


def commit(repository: Path, message: str) -> str:
    """All files as a commit; its name."""
    git(repository, "add", "--all")
    who = ("-c", "user.name=example", "-c", "user.email=example@localhost")
    git(repository, *who, "commit", "--quiet", "--message", message)
    return git(repository, "rev-parse", "HEAD")


def git(repository: Path, *arguments: str) -> str:
    """What git says."""
    done = subprocess.run(
        ["git", "-C", str(repository), *arguments], check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def start_dagster(root: Path, servers: Mapping[str, Mapping[str, str]], opened: ExitStack) -> None:
    """A code server for each commit, with settings of its own; the web server and the daemon.

    servers: environments by the name of the code location, the current one first.
    """
    lines, current = ["load_from:"], next(iter(servers.values()))
    for name, environment in servers.items():
        port = free_port()
        command = ["dagster", "api", "grpc", "--host", "127.0.0.1", "--port", str(port),
                   "--module-name", "definitions", "--working-directory", str(ROOT),
                   "--location-name", name]  # fmt: skip
        up = partial(accepts, port)
        opened.enter_context(running(command, environment, root / f"{name}.log", up))
        lines += [
            "  - grpc_server:",
            f"      {{host: 127.0.0.1, port: {port}, location_name: {name}}}",
        ]
    workspace = root / "workspace.yaml"
    workspace.write_text("\n".join(lines) + "\n")
    url = current["ML_PLATFORM_DAGSTER_URL"]
    port = url.rpartition(":")[2]
    web = ["dagster-webserver", "--host", "127.0.0.1", "--port", port, "-w", str(workspace)]
    up = partial(answers, f"{url}/server_info")
    opened.enter_context(running(web, current, root / "webserver.log", up))
    daemon = ["dagster-daemon", "run", "-w", str(workspace)]
    opened.enter_context(running(daemon, current, root / "daemon.log"))


class Service:
    """`ml-platform serve`, which can be ended and started again."""

    def __init__(self, root: Path, environment: Mapping[str, str]) -> None:
        self._root, self._environment = root, environment
        self.url = f"http://127.0.0.1:{environment['ML_PLATFORM_SERVING_PORT']}"
        self._opened = ExitStack()

    def start(self) -> None:
        command = ["ml-platform", "serve"]
        up = partial(answers, f"{self.url}/health/live")
        log = self._root / "serve.log"
        self._opened.enter_context(running(command, self._environment, log, up))

    def stop(self) -> None:
        self._opened.close()


@contextmanager
def receiver() -> Iterator[tuple[str, Receiver]]:
    """A server that notes what it is told, and its address."""
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


@contextmanager
def running(
    command: list[str],
    environment: Mapping[str, str],
    log: Path,
    is_up: Callable[[], bool] = lambda: True,
) -> Iterator[None]:
    """A process, up when the block begins, that ends with it; what it says is in a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    # Background jobs of a shell ignore SIGINT, and Dagster hands that on to SIGTERM.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, cwd=ROOT, env=dict(environment), stdout=output, stderr=subprocess.STDOUT
            )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        until(lambda: ended(process, log) or is_up(), command[0])
        yield
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def ended(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Raise RuntimeError, with what it said last, where a process has ended."""
    if process.poll() is not None:
        said = log.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{process.args} ended with {process.returncode}: {said}")
    return False


def until(look: Callable[[], Any], what: str) -> Any:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + UP_WITHIN_SECONDS
    while not (found := look()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: nothing within {UP_WITHIN_SECONDS} seconds; see the logs")
        time.sleep(0.3)
    return found


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def accepts(port: int) -> bool:
    """Whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
