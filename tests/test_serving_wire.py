"""Names, heads and bytes that mean harm: no file is reached, no line is forged, nothing is kept."""

import contextlib
import http.client
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from ml_platform.serving.versions.live import LiveVersions
from tests.attacked import (
    FEEDBACK,
    INVOKE,
    JSON,
    LABEL,
    PREDICT,
    deploy_all,
    surviving,
    talk,
)
from tests.served import Deployment, Served

pytestmark = [pytest.mark.slow, pytest.mark.every_case]


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = deploy_all(tmp_path_factory.mktemp("wired"))
    yield made
    made.lake.close()


@pytest.fixture
def client(served: Served) -> Iterator[httpx2.Client]:
    with surviving(served) as client:
        yield client


NAMES = [
    "..", "../..", "%2e%2e%2f", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "..%2f..%2fetc%2fpasswd",
    "..%5c..%5cwindows", "%252e%252e%252f", "%00", "trips%00", "trips%00.pkl", "%0d%0aX-Evil:%201",
    "%0a%7b%22level%22:%22error%22%7d", "%ff%fe", "%ed%a0%80", "%", "%zz", ".", "%2e", "trips%2f",
    "trips/", "TRIPS", "trips;v=1", "trips%3fa=b", "file:%2f%2f%2fetc%2fpasswd", "models:%2ftrips",
    "a" * 60_000, "'%20OR%201=1--", "*", "%2a", "anonymous", "{model}",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name[:30])
def test_a_name_leads_nowhere(served: Served, client: httpx2.Client, name: str) -> None:
    for method, path in [
        ("GET", "/v2/models/{}"), ("GET", "/v2/models/{}/ready"), ("POST", "/v2/models/{}/infer"),
        ("GET", "/v2/models/trips/versions/{}"), ("POST", "/predict/{}"), ("GET", "/status/{}"),
        ("POST", "/mlflow/{}/invocations"), ("GET", "/mlflow/{}/ping"), ("POST", "/feedback/{}"),
        ("GET", "/review/{}"), ("POST", "/review/trips/{}"),
    ]:  # fmt: skip
        # Not with httpx2, which would resolve the dots itself.
        connection = http.client.HTTPConnection(served.http, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path.format(name), b'{"rows": [], "label": true}', JSON)
            answer = connection.getresponse()
            body = answer.read()
        assert answer.status in {400, 404, 405, 431}, (path, answer.status, body[:300])
        assert answer.getheader("content-type") == "application/problem+json"
        assert answer.getheader("x-evil") is None
        assert b"root:" not in body
        assert len(body) < 2_000


POST = b"POST /predict/trips HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
GET = b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, identity\r\n\r\n{}",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n{}\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n{}",
        POST + b"Content-Length: 2x\r\n\r\n{}",
        POST + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
        b"GET /v2/health/live HTTP/9.9\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nX-A: a\x00b\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /v2/health/live HTTP/1.1\r\n: empty\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / a b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT example.org:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda sent: repr(sent.replace(POST, b"")[:40]),
)
def test_what_is_no_http_is_refused(
    served: Served, client: httpx2.Client, request_bytes: bytes
) -> None:
    said = talk(served, request_bytes)
    assert re.match(rb"HTTP/1.1 (400|404|405) ", said), said[:300]
    assert b"application/problem+json" in said


@pytest.mark.parametrize(
    "host", [b"[::1", b"x]", b"a b", b"\xff", b"evil.example/x?y#z", b"@:99999", b"", b"x" * 9_000]
)
def test_a_host_that_is_none_changes_nothing(
    served: Served, client: httpx2.Client, host: bytes
) -> None:
    for path in (b"/nothing", b"/v2/", b"//evil.example/v2", b"/v2/models/nothing"):
        said = talk(
            served, b"GET %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % (path, host)
        )
        assert re.match(rb"HTTP/1.1 40[034] ", said), said[:300]
        assert b"location:" not in said.lower()


def test_a_head_without_end_is_not_kept(served: Served, client: httpx2.Client) -> None:
    line = b"X-Long: " + b"x" * 8_000 + b"\r\n"
    for sent in (
        [GET, line * 1_000],
        [GET + b"X-Long: ", b"x" * 8_000_000],
        [b"GET /" + b"x" * 8_000_000],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", line * 1_000],
        [POST + b"Transfer-Encoding: chunked\r\n\r\n2;", b"x" * 8_000_000],
    ):
        said = talk(served, *sent)
        # Where much of what was sent was not even read, the answer may be lost with it.
        assert said == b"" or re.match(rb"HTTP/1.1 4(31|00) ", said), said[:300]


def test_chunks_without_end_are_refused(deployment: Deployment) -> None:
    with deployment.served(body_seconds=0.5, head_seconds=0.5, most_bytes=1_000_000) as served:
        begun = POST + b"Transfer-Encoding: chunked\r\n\r\n"
        large = talk(served, begun, *[b"10000\r\n" + b" " * 65_536 + b"\r\n"] * 100)
        assert large == b"" or b" 413 " in large
        host, _, port = served.http.partition(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(begun)
            said = b""
            slow.settimeout(0.05)
            deadline = time.monotonic() + 60
            # What is sent after the service has closed the connection resets it.
            with contextlib.suppress(ConnectionError):
                while time.monotonic() < deadline:
                    with contextlib.suppress(TimeoutError):
                        part = slow.recv(65_536)
                        said += part
                        if not part:
                            break
                    slow.sendall(b"1\r\n \r\n")
        assert b" 400 " in said
        assert b"did not arrive within 0.5 seconds" in said
        # Shorter than it says that it is: whoever waits for the rest does not wait for ever.
        short = talk(served, POST + b"Content-Length: 100\r\n\r\n{}")
        assert b"did not arrive within 0.5 seconds" in short


IDS = [
    b"a\tb", b'{"level": "error"}', b"\xff\xfe", "\u2028".encode(), b"x" * 10_000, b"%0aevil",
    b"a b", b"\x1b[31m", b"", b"${jndi:ldap://x}", b"ok-1",
]  # fmt: skip


def test_lines_of_the_log_stay_whole(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    with deployment.served(log_requests="all") as served:
        for given in IDS:
            for path in (b"/v2", b"/predict/%0a%7b%22level%22:%22error%22%7d", b"/%0d%0aX-Evil:1"):
                head = b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" % path
                said = talk(served, head + b"X-Request-Id: %b\r\n\r\n" % given)
                head, _, _ = said.partition(b"\r\n\r\n")
                ids = re.findall(rb"(?im)^x-request-id: (.*?)\r?$", head)
                if b" 400 " not in said[:20]:
                    assert len(ids) == 1
                    assert re.fullmatch(rb"[!-~]{1,128}", ids[0])
                assert b"\nx-evil" not in head.lower()
        # A second line in what is one line to the caller.
        talk(served, GET + b"Connection: close\r\nX-Request-Id: a\r\n evil: 1\r\n\r\n")
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    events = [json.loads(line) for line in lines if line.startswith("{")]
    requests = [event for event in events if event["event"] == "request"]
    assert len(requests) >= 2 * len(IDS)
    for event in requests:
        assert re.fullmatch(r"[!-~]{1,128}", event["request_id"])
        assert event["level"] == "info"


def test_logged_records_stay_whole(deployment: Deployment, client: httpx2.Client) -> None:
    folder = Path(deployment.settings.landing_uri) / "trips"
    client.post(PREDICT, content=b'{"rows": [{"\\n{}\\u2028": 1}]}')
    client.post(FEEDBACK, json={"items": [LABEL]})
    files = list(folder.rglob("*.jsonl"))
    assert files
    for file in files:
        for line in file.read_bytes().split(b"\n")[:-1]:
            assert isinstance(json.loads(line), dict)


def test_a_fault_of_the_service_shows_nothing_of_itself(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a secret place")

    with deployment.client() as client, monkeypatch.context() as patched:
        patched.setattr(LiveVersions, "model", fail)
        answer = client.post(INVOKE, json={}, headers={"x-request-id": "order-7"})
    assert (answer.status_code, answer.json()["status"]) == (500, 500)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get_list("x-request-id") == ["order-7"]
    assert "secret" not in answer.text
