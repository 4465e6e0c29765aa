"""What the example needs, as processes of this machine.

Storage, Dagster with a use case at two commits, the service, a receiver of callbacks. All of them
listen on 127.0.0.1, and end with the `with` block.
"""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from published_pipeline.processes import ROOT, accepts, answers, free_port, running, until
from published_pipeline.receiver import SECRET, Call, receiver
from published_pipeline.storage import storage

from ml_platform.settings import Settings

HERE = Path(__file__).parent
CURRENT, KEPT = "ml-platform", "ml-platform-kept"
"""Names of the code locations; Dagster takes the first by name for what is asked of none."""
ADDED_LATER = "      sample: {least: 0.2}\n"
"""Line of the use case that the earlier commit lacks."""


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
    calls: list[Call]
    """What the receiver was sent, in order."""
    processes: Mapping[str, subprocess.Popen[bytes]]
    """Of Dagster: code servers by the name of their location, `webserver` and `daemon`."""

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
        instance = root / "dagster" / "dagster.yaml"
        if not instance.exists():
            instance.parent.mkdir(parents=True)
            shutil.copy(ROOT / "deploy" / "dagster.yaml", instance)
        earlier, current = commit_twice(root / "repository", root / "kept")
        kept = {
            "ML_PLATFORM_USE_CASES": str(root / "kept" / "use_cases"),
            "ML_PLATFORM_KEPT_VERSION": "true",
        }
        servers = zip(locations, (environment, {**environment, **kept}), strict=True)
        processes = start_dagster(root, dict(servers), opened)
        service = Service(root, environment)
        service.start()
        opened.callback(service.stop)
        yield Stack(
            root, service, environment["ML_PLATFORM_DAGSTER_URL"], url, environment, earlier,
            current, calls.calls, processes,
        )  # fmt: skip


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


def start_dagster(
    root: Path, servers: Mapping[str, Mapping[str, str]], opened: ExitStack
) -> dict[str, subprocess.Popen[bytes]]:
    """A code server for each commit, with settings of its own; the web server and the daemon.

    servers: environments by the name of the code location, the current one first.
    """
    lines, current = ["load_from:"], next(iter(servers.values()))
    started = {}
    for name, environment in servers.items():
        port = free_port()
        command = ["dagster", "api", "grpc", "--host", "127.0.0.1", "--port", str(port),
                   "--module-name", "definitions", "--working-directory", str(ROOT),
                   "--location-name", name]  # fmt: skip
        up = partial(accepts, port)
        process = running(command, environment, root / f"{name}.log", up)
        started[name] = opened.enter_context(process)
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
    process = running(web, current, root / "webserver.log", up)
    started["webserver"] = opened.enter_context(process)
    daemon = ["dagster-daemon", "run", "-w", str(workspace)]
    process = running(daemon, current, root / "daemon.log")
    started["daemon"] = opened.enter_context(process)
    return started


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
