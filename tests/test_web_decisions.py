"""What people decide on pages: as the command line does it, by those alone who may."""

import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from ml_platform.access import Audit, Grant, create_key
from ml_platform.features import compute_labels
from ml_platform.registry import Promotion, history, record
from ml_platform.registry.promotions import CHAMPION
from ml_platform.replay import observe, retraining_due
from ml_platform.settings import ServingSettings
from ml_platform.sources import ingest
from ml_platform.training import train
from ml_platform.web import Pages, build_app
from tests.browsers import opened_browser
from tests.served import LOGGED, Deployment, declare, deploy, published, rows_of
from tests.trips_use_case import COMMIT, at, days

ORIGIN = {"Origin": "http://127.0.0.1"}
DAY = days(29, 29)
GIVEN = {"decision": "approve", "reason": "better on weekends", "by": "ada"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Requests that wait for a person, and challengers: version 1 serves."""
    made = declare(deploy(tmp_path_factory.mktemp("decided")), LOGGED)
    made.promote(20)
    published(made)
    with made.client() as client:
        client.post("/predict/trips", json={"rows": rows_of(29)})
    ingest(made.lake, made.use_case, "requests", DAY, COMMIT)
    yield made
    made.lake.close()


def ask(made: Deployment, day: int) -> int:
    """The number of a challenger of that cutoff, which waits."""
    version = train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={}).version
    row = Promotion(
        version, at(day), datetime.now(UTC), "promotion gate", "waiting", "better by 0.1",
        {"champion_version": 1.0},
    )  # fmt: skip
    assert record(made.lake, made.use_case, row, COMMIT)
    return version


@contextmanager
def visited(made: Deployment, **serving: Any) -> Iterator[TestClient]:
    pages = Pages(made.settings, ServingSettings(**serving))
    # Nothing is observed: nobody looks at the first page.
    yield TestClient(build_app(pages), base_url="http://127.0.0.1", follow_redirects=False)
    pages.site.close()


def waiting(client: TestClient) -> list[str]:
    page = client.get("/trips/review").text
    return re.findall(r'name="prediction_id" value="([^"]+)"', page) + re.findall(
        r'<th scope="row" class="key">([^<]+)</th>', page
    )


def test_a_challenger_is_refused_on_a_page_with_a_name_and_a_reason(made: Deployment) -> None:
    page_of = f"/trips/versions/{(version := ask(made, 22))}"
    answer = f"{page_of}/answer"
    with visited(made) as client:
        page = client.get("/approvals").text
        assert f'<form method="post" action="{answer}">' in page
        for missing in ("by", "reason", "decision"):
            said = client.post(answer, data={**GIVEN, missing: " "}, headers=ORIGIN)
            assert said.status_code == 422, said.text
        done = client.post(answer, data={**GIVEN, "decision": "reject"}, headers=ORIGIN)
        assert (done.status_code, done.headers["location"]) == (303, page_of)
        # Whoever decided last may have died before the alias was set.
        made.registry.set_alias(made.use_case, CHAMPION, version)
        again = client.post(answer, data=GIVEN, headers=ORIGIN)
        assert made.registry.alias(made.use_case, CHAMPION) == 1
        assert again.status_code == 409
        assert "was refused by ada" in again.text
        assert "Nothing waits" in client.get("/approvals").text
    refused = history(made.lake, made.use_case)[-1]
    assert (refused.decision, refused.decided_by, refused.reason) == (
        "refused", "ada", GIVEN["reason"],
    )  # fmt: skip
    (row,) = Audit(made.lake).rows(what="reject")
    assert (row.action.who, row.action.channel, row.action.object) == (
        "ada",
        "pages",
        f"version {version}",
    )


def test_a_challenger_is_approved_by_whoever_has_the_role(made: Deployment) -> None:
    answer = f"/trips/versions/{ask(made, 24)}/answer"
    keys = {
        role: create_key(
            made.lake, f"{role} one", [Grant(role, "trips")],
            expires_at=datetime.now(UTC) + timedelta(days=1), created_by="ada", commit=COMMIT,
        )[1]
        for role in ("operator", "approver")
    }  # fmt: skip
    with visited(made, authentication=True) as client:
        headers = {role: {**ORIGIN, "Authorization": f"Bearer {key}"} for role, key in keys.items()}
        assert "You cannot answer here: say who you are" in client.get("/approvals").text
        assert client.post(answer, data=GIVEN, headers=ORIGIN).status_code == 401
        page = client.get("/approvals", headers=headers["operator"]).text
        assert "You cannot answer here: operator one lacks the permission" in page
        assert "<form" not in page
        assert client.post(answer, data=GIVEN, headers=headers["operator"]).status_code == 403
        page = client.get("/approvals", headers=headers["approver"]).text
        assert "<form" in page
        assert "Your name" not in page
        # Who it is says the key, whatever the form says.
        done = client.post(answer, data=GIVEN, headers=headers["approver"])
        assert done.status_code == 303
    approved = history(made.lake, made.use_case)[-1]
    assert (approved.decision, approved.decided_by) == ("promoted", "approver one")
    (row,) = Audit(made.lake).rows(what="approve")
    assert row.action.details["principal"].startswith("key:")


@pytest.mark.parametrize(
    "origin",
    [None, "null", "http://evil.example", "http://127.0.0.1:8000", "https://127.0.0.1.evil"],
)
def test_a_form_of_another_page_decides_nothing(made: Deployment, origin: str | None) -> None:
    before = history(made.lake, made.use_case)
    with visited(made) as client:
        headers = {} if origin is None else {"Origin": origin}
        for path in ("/trips/versions/2/answer", "/trips/review"):
            assert client.post(path, data=GIVEN, headers=headers).status_code == 403
    assert history(made.lake, made.use_case) == before


def test_only_names_of_this_machine_and_of_the_pages_are_answered(made: Deployment) -> None:
    settings = made.settings.model_copy(update={"pages_url": "https://pages.ml.example.org"})
    pages = Pages(settings)
    client = TestClient(build_app(pages), base_url="http://127.0.0.1")
    for host, status in (
        ("localhost:3001", 200), ("pages.ml.example.org", 200), ("[::1]:3001", 200),
        ("evil.example", 403), ("[::1", 403),
    ):  # fmt: skip
        answer = client.get("/approvals", headers={"Host": host})
        assert answer.status_code == status, host
        assert ("ML_PLATFORM_PAGES_URL" in answer.text) == (status == 403)
    pages.site.close()


def test_the_queue_is_worked_off_on_a_page(made: Deployment) -> None:
    with visited(made) as client:
        first, second, *others = waiting(client)
        assert "pace__pace" in client.get("/trips/review").text
        sent = {"prediction_id": first, "label": "true", "by": "ada & co"}
        done = client.post("/trips/review", data=sent, headers=ORIGIN)
        assert (done.status_code, done.headers["location"]) == (
            303, "/trips/review?by=ada+%26+co",
        )  # fmt: skip
        assert 'value="ada &amp; co"' in client.get(done.headers["location"]).text
        assert waiting(client) == [second, *others]
        other = {**sent, "label": "false", "by": "bob"}
        again = client.post("/trips/review", data=other, headers=ORIGIN)
        assert again.status_code == 409
        assert "ada &amp; co answered &#39;true&#39;" in again.text
        odd = {**sent, "prediction_id": second, "label": "perhaps"}
        assert client.post("/trips/review", data=odd, headers=ORIGIN).status_code == 422
        skipped = {**sent, "prediction_id": second, "label": "skip"}
        assert client.post("/trips/review", data=skipped, headers=ORIGIN).status_code == 303
        assert waiting(client) == others
    ingest(made.lake, made.use_case, "feedback", DAY, COMMIT)
    compute_labels(made.lake, made.use_case, DAY, COMMIT)
    with made.lake.cursor() as cursor:
        kinds = cursor.execute(
            "SELECT kind, label, given_by FROM lake.trips.feedback ORDER BY received_at"
        ).fetchall()
    assert kinds == [("label", True, "ada & co"), ("skip", None, "ada & co")]
    found = [r.action for r in Audit(made.lake).rows() if r.action.what.endswith(" review")]
    assert [(a.who, a.channel) for a in found] == [("ada & co", "pages")] * 2


def test_a_form_may_not_be_of_any_size(made: Deployment) -> None:
    with visited(made) as client:
        large = {**GIVEN, "reason": "x" * 20_000}
        answer = client.post("/trips/versions/2/answer", data=large, headers=ORIGIN)
        assert answer.status_code == 413
        many = "&".join(f"a{i}=1" for i in range(30))
        answer = client.post("/trips/versions/2/answer", content=many, headers=ORIGIN)
        assert answer.status_code == 422


@contextmanager
def shown(made: Deployment) -> Iterator[tuple[str, Any]]:
    """The address of the pages, and a browser."""
    pages = Pages(made.settings)
    with socket.socket() as listening, opened_browser() as browser:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(pages), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", browser
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.slow
def test_a_person_answers_by_keyboard_in_a_browser(made: Deployment) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    version = ask(made, 26)
    with shown(made) as (address, browser):
        page = browser.new_page()
        page.goto(f"{address}/trips/review")
        asked = page.locator('input[name="prediction_id"]').input_value()
        page.keyboard.type("ada")
        for key in ("Tab", "Space", "ArrowDown", "Enter"):
            page.keyboard.press(key)
        page.wait_for_url("**/review?by=ada")
        following = page.locator('input[name="prediction_id"]').input_value()
        assert following != asked
        # From the second one on nothing but the answer is asked.
        page.keyboard.press("Space")
        page.keyboard.press("Enter")
        expect(page.locator('input[name="prediction_id"]')).not_to_have_value(following)
        page.goto(f"{address}/approvals")
        challenger = page.locator("section").filter(has_text=f"version {version}")
        challenger.get_by_label("Your name").fill("ada")
        challenger.get_by_label("Why").fill("not now")
        challenger.get_by_role("button", name="Refuse it").press("Enter")
        page.wait_for_url(f"**/trips/versions/{version}")
        expect(page.get_by_text("refused by ada")).to_be_visible()
        context = browser.new_context(bypass_csp=True, viewport={"width": 390, "height": 800})
        page = context.new_page()
        page.goto(f"{address}/trips/review")
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in {"serious", "critical"}] == []
        page.screenshot(path=made.root / "review.png", full_page=True)
    below = made.settings.data / "landing" / "trips" / "feedback"
    texts = "".join(file.read_text() for file in below.rglob("*.jsonl"))
    assert asked in texts
    assert following in texts


def test_retraining_is_shown_as_it_is_decided(made: Deployment) -> None:
    with visited(made) as client:
        answer = client.get("/trips/retraining")
    assert answer.status_code == 200
    assert f"<dd>{', '.join(made.use_case.retrain.on)}</dd>" in answer.text
    due = retraining_due(made.use_case, observe(made.lake, made.registry, made.use_case))
    assert ("A challenger is due" in answer.text) == (due is not None)
    for version in made.registry.versions(made.use_case):
        assert f'<a href="/trips/versions/{version}">version {version}</a>' in answer.text
    assert "No replay has been made yet" in answer.text


def test_the_newest_replay_is_shown(made: Deployment) -> None:
    folder = made.settings.reports / "trips"
    folder.mkdir(parents=True, exist_ok=True)
    policy = {
        "policy": "every:7d", "value": 0.8125, "regret": 0.01, "regret_95": [0.001, 0.02],
        "trainings": 3, "promoted": 2, "refused": 1, "by_window": {"2024-03-01": 0.8},
    }  # fmt: skip
    files = [folder / f"replay_{year}.json" for year in (2024, 2023)]
    for place, file in enumerate(files):
        document = {
            "metric": "roc_auc", "rows": 1200, "answer": f"Answer {place}.", "policies": [policy],
            "picture": str(folder / "gone.png"),
        }  # fmt: skip
        file.write_text(json.dumps(document))
        os.utime(file, (place, place))
    with visited(made) as client:
        page = client.get("/trips/retraining").text
    for file in files:
        file.unlink()
    assert "Answer 1." in page
    assert "+0.0010 to +0.0200" in page
    assert "2024-03-01 to 2024-03-01, 1,200 labelled predictions" in page
