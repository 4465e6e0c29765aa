"""The page that shows the API: whole, safe, and made of what openapi.json says."""

import html
import re
import subprocess
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from ml_platform.serving.http.openapi import describe
from ml_platform.serving.http.page import write_page
from tests.attacked import REVIEWED
from tests.browsers import opened_browser
from tests.served import Deployment, Served, deployed

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("shown"), declared=REVIEWED, online=True) as made:
        yield made


def requests_of(page: str) -> list[str]:
    """Commands that the page shows."""
    return [html.unescape(each) for each in re.findall(r"<pre>(.*?)</pre>", page, re.DOTALL)]


def test_every_operation_is_shown_with_who_may_ask_and_a_request(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    page = client.get("/docs")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            operation = page.text.partition(f'<details id="{described["operationId"]}">')[2]
            operation = html.unescape(operation.partition("</details>")[0])
            assert f">{method.upper()}</span> <code>{path}</code>" in operation
            assert described["summary"] in operation
            permission = described.get("x-permission")
            assert (f"<code>{permission}</code> (roles" if permission else "Needs no") in operation
            assert all(f">{status}<" in operation for status in described["responses"])
            (command,) = requests_of(operation)
            assert command.startswith("curl -s")
    # Where the rest is.
    for link in ("openapi.json", "health/live", "health/ready", "metrics", "status"):
        assert f'href="{link}"' in page.text
    assert client.get("/").text == page.text


def test_the_page_is_made_once_and_again_for_another_champion(deployment: Deployment) -> None:
    with deployment.client() as client:
        handler = next(r for r in client.app.routes if r.path == "/docs").endpoint.__self__
        pages = {client.get("/docs").text for _ in range(3)}
        (made,) = handler._kept.values()
        assert pages == {client.get("/").text}
        assert list(handler._kept.values()) == [made]


def test_requests_name_where_the_service_was_asked(client: TestClient) -> None:
    page = client.get("/docs", headers={"host": "localhost:9999"}).text
    assert "http://localhost:9999/predict/trips" in page


def test_texts_of_a_use_case_are_text(client: TestClient) -> None:
    live = client.app.state.service.live
    document = describe(live, ["trips"], [])
    document["info"]["description"] = "<script>alert(1)</script>"
    assert "&lt;script&gt;alert(1)" in write_page(document)
    assert "<script" not in write_page(document)


def test_requests_that_are_pasted_are_answered(served: Served) -> None:
    page = ask(f"curl -s http://{served.http}/docs").stdout
    asked = [each for each in requests_of(page) if "/control/" not in each]
    assert len(asked) > 20
    for command in asked:
        if "/review/trips/" in command:
            # Of an id that there is not.
            continue
        found = ask(f"{command} -o /dev/null -w '%{{http_code}}'")
        assert found.stdout in {"200", "202"}, command


def ask(command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)


@pytest.mark.every_case
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_it_without_a_script_or_another_host(
    served: Served, scheme: str, width: int
) -> None:
    from playwright.sync_api import expect

    address = f"http://{served.http}"
    with opened_browser() as browser:
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 900},
        )
        page = context.new_page()
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"{address}/docs")
        page.locator("summary", has_text="/predict/trips").click()
        expect(page.get_by_text("curl -s --json").first).to_be_visible()
        # What does not fit scrolls in its own box.
        root = "document.documentElement"
        assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth")
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != (
            "rgb(255, 255, 255)"
        )
        assert dark == (scheme == "dark")
        assert (said, asked) == ([], [f"{address}/docs"])
        page.get_by_role("link", name="/health/live").click()
        expect(page.get_by_text("true")).to_be_visible()
