"""Without authentication a page of somebody else gets nothing done, and learns nothing."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.served import ROW, Deployment

BODY = {"dataframe_records": [ROW]}
ELSEWHERE = {"origin": "https://evil.example.org"}
CHANGING = (
    ("/control/trips/rollback", {"reason": "because"}),
    ("/control/trips/train", {"cutoff": "2024-03-20"}),
    ("/feedback/trips", {"items": []}),
    ("/review/trips/x", {"skip": True}),
)


@pytest.mark.parametrize(("path", "body"), [*CHANGING, ("/invocations", BODY)])
@pytest.mark.parametrize("origin", ["https://evil.example.org", "null", "http://localhost:8081"])
def test_a_page_of_another_origin_is_refused(
    client: TestClient, path: str, body: dict[str, Any], origin: str
) -> None:
    answer = client.post(path, json=body, headers={"origin": origin})
    assert answer.status_code == 403
    assert "ML_PLATFORM_SERVING_ALLOWED_ORIGINS" in answer.json()["detail"]


def test_a_page_of_another_origin_cannot_end_a_run(client: TestClient) -> None:
    assert client.delete("/control/runs/x", headers=ELSEWHERE).status_code == 403


@pytest.mark.parametrize("method", ["TRACE", "PUT", "PATCH", "POST"])
def test_a_method_that_there_is_not_is_answered_as_such(client: TestClient, method: str) -> None:
    for path in ("/control/runs/x", "/control/trips/pipelines"):
        assert client.request(method, path).status_code == 405


@pytest.mark.parametrize(("path", "body"), CHANGING)
@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", None]
)
def test_what_a_form_can_send_is_refused(
    client: TestClient, path: str, body: dict[str, Any], kind: str | None
) -> None:
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post(path, content=b'{"reason": "because"}', headers=headers)
    assert answer.status_code == 415
    assert "send application/json (curl --json)" in answer.json()["detail"]


@pytest.mark.parametrize(
    "host", ["evil.example.org", "evil.example.org:8080", "10.0.0.7", "[::2]:1", "[::1", "a b"]
)
def test_a_name_of_somebody_else_is_refused(client: TestClient, host: str) -> None:
    for answer in (
        client.post("/invocations", json=BODY, headers={"host": host}),
        client.get("/status", headers={"host": host}),
    ):
        assert answer.status_code == 403
        assert "ML_PLATFORM_SERVING_ALLOWED_HOSTS" in answer.json()["detail"]
    # Whoever balances load has no name for a process, and learns nothing.
    assert client.get("/health/live", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8080", "127.8.8.8", "[::1]:8080"])
def test_the_service_itself_may_be_called_and_its_own_pages_may_ask(
    client: TestClient, host: str
) -> None:
    for more in ({}, {"origin": f"http://{host}"}):
        answer = client.post("/invocations", json=BODY, headers={"host": host, **more})
        assert answer.status_code == 200, answer.text


def test_names_and_origins_may_be_allowed(deployment: Deployment) -> None:
    allowed = {
        "allowed_hosts": ("ml.example.org",), "allowed_origins": ("https://pages.example.org",),
    }  # fmt: skip
    headers = {"host": "ml.example.org", "origin": "https://pages.example.org"}
    with deployment.client(**allowed) as client:
        assert client.post("/invocations", json=BODY, headers=headers).status_code == 200
        headers["origin"] = "https://pages.example.org.evil"
        assert client.post("/invocations", json=BODY, headers=headers).status_code == 403
