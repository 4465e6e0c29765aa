"""A service that is attacked: everything that can be asked of it is, by whoever means harm."""

import contextlib
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2

from tests.served import ROW, Deployment, Served, declare, deploy, published, ruled

REVIEWED = "serving: {log: {}, review: {uncertain: [0.2, 0.8]}}\n"

INFER, INVOKE, PREDICT = "/v2/models/trips/infer", "/mlflow/trips/invocations", "/predict/trips"
FEEDBACK = "/feedback/trips"
REVIEW = "/review/trips/000601fcbba0d8-0123456789-000612981d875000-0"
POSTS = (INFER, INVOKE, PREDICT, FEEDBACK, REVIEW)
KEYED = {"trip": 300_001, "started_at": "2024-03-30T04:00:00Z", "city": "Boston", "distance": 21.5}
LABEL = {"trip": 300_001, "event_time": "2024-03-30T04:00:00Z", "label": True}
JSON = {"content-type": "application/json"}


def deploy_all(root: Path) -> Deployment:
    """A model that serves, features online, requests logged, labels and reviews taken."""
    made = ruled(declare(deploy(root), REVIEWED), "distance < 1000", "distance <> trip")
    made.promote(20)
    published(made)
    return made


@contextmanager
def surviving(served: Served) -> Iterator[httpx2.Client]:
    """A client; whatever is asked meanwhile, the service answers afterwards."""
    with httpx2.Client(base_url=f"http://{served.http}", timeout=60) as client:
        yield client
        assert client.post(INVOKE, json={"instances": [ROW]}).status_code == 200
        assert client.post(PREDICT, json={"rows": [KEYED]}).status_code == 200


CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_headers_conformance", "response_schema_conformance", "unsupported_method",
    "negative_data_rejection",
)  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """One request that schemathesis sent, and what came of it."""

    method: str
    path: str
    status: int
    headers: Mapping[str, str]
    """Of the answer, by names in small letters."""


def find_no_fault(
    url: str,
    folder: Path,
    *options: str,
    checks: Sequence[str] = CHECKS,
    phases: str = "examples,coverage,fuzzing",
    examples: int = 10,
    good: Sequence[int] = (),
) -> list[Answered]:
    """Let schemathesis ask everything that the description at a URL allows, and what it does not.

    good: statuses from 500 on that are no fault where the description has them.
    """
    allowed = json.dumps(["2xx", "3xx", "4xx", *map(str, good)])
    config = f"[checks]\nnot_a_server_error.expected-statuses = {allowed}\n"
    (folder / "schemathesis.toml").write_text(config)
    report = folder / "asked.har"
    found = subprocess.run(
        [
            Path(sys.executable).with_name("schemathesis"), "--no-color", "run", url,
            "--checks", ",".join(checks), "--phases", phases,
            "--max-examples", str(examples), "--seed", "1", "--generation-deterministic",
            "--suppress-health-check", "all", "--request-timeout", "60",
            "--report-har-path", report, "--output-sanitize", "false", *options,
        ],
        cwd=folder, capture_output=True, text=True, timeout=480, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-8000:] + found.stderr[-2000:]
    assert re.search(r"\bpassed\b", found.stdout), found.stdout[-2000:]
    return [_answered(entry) for entry in json.loads(report.read_text())["log"]["entries"]]


def _answered(entry: Any) -> Answered:
    asked, answer = entry["request"], entry["response"]
    headers = {header["name"].lower(): header["value"] for header in answer["headers"]}
    return Answered(asked["method"], urlsplit(asked["url"]).path, answer["status"], headers)


def check_refused(answer: httpx2.Response, *statuses: int) -> None:
    assert answer.status_code in statuses, f"{str(answer.request.url)[:200]}: {answer.text[:500]}"
    assert answer.headers["content-type"] == "application/problem+json"
    assert len(answer.content) < 2_000, "nobody's megabytes are sent back"
    assert answer.json()["status"] == answer.status_code


def talk(served: Served, *parts: bytes, seconds: float = 30) -> bytes:
    """Everything that the service says to these bytes until it closes, or the time is over."""
    host, _, port = served.http.partition(":")
    said = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65_536):
                said += part
    return said


def is_closed_on(address: str, sent: bytes, dripped: bytes, pause: float) -> bool:
    """Whether the service ends a connection on which more is sent only now and then."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(sent)
        connection.settimeout(pause)
        for _ in range(int(20 / pause)):
            try:
                if connection.recv(65_536) == b"":
                    return True
            except TimeoutError:
                pass
            except ConnectionError:
                return True
            if dripped:
                # Whoever is gone is found by the next look.
                with contextlib.suppress(ConnectionError):
                    connection.sendall(dripped)
    return False
