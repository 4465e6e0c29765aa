"""The pages in a real browser, over a use case that was landed, trained, scored and reported on."""

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
import uvicorn

from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Registry
from ml_platform.registry.card import card_markdown, read_card
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train
from ml_platform.web import Pages, build_app
from tests import moody_trips as moods
from tests.browsers import opened_browser

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

COMMIT = Commit("test", "0")
DAYS, CUTOFFS = 24, (12, 20)
"""From the second cutoff on what is asked is much farther away."""
KEY = str(moods.day(21))


def midnight(number: int) -> datetime:
    return datetime(*moods.day(number).timetuple()[:3], tzinfo=moods.ZONE)


@dataclass
class Site:
    address: str
    pages: Pages
    lake: Lake
    registry: Registry
    use_case: Any

    @property
    def paths(self) -> tuple[str, ...]:
        """One of each page."""
        with self.lake.cursor() as cursor:
            found = cursor.execute("SELECT max(trip) FROM lake.moods.predictions").fetchone()
        assert found is not None
        return (
            "/", "/moods/", "/moods/drift/", f"/moods/drift/{KEY}", f"/moods/performance/{KEY}",
            "/moods/versions/1", "/moods/predictions", f"/moods/predictions?trip={found[0]}",
            "/moods/impact", f"/moods/impact?file=arrivals/{KEY}.csv",
            f"/moods/impact?source=trips&key.trip={found[0]}&rows=yes", "/moods/impact?version=1",
            "/nothing/", "/approvals", "/runs", "/audit", "/moods/rollouts", "/moods/costs",
            "/moods/retraining",
        )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("pages")
    use_case = moods.write_folder(root)
    # Nobody answers there, and that is said at once.
    settings = Settings(data=root / "data", use_cases=root, dagster_url="http://127.0.0.1:9")
    lake, registry = Lake(settings), Registry(settings)
    rows = moods.trips(DAYS, (CUTOFFS[1],))
    for number in range(DAYS):
        moods.land(settings, rows, number)
    whole = Window(midnight(0), midnight(DAYS))
    for source in use_case.sources:
        ingest(lake, use_case, source, whole, COMMIT)
    compute_features(lake, use_case, "pace", whole, COMMIT)
    compute_labels(lake, use_case, whole, COMMIT)
    for cutoff in CUTOFFS:
        report = train(lake, registry, use_case, midnight(cutoff), COMMIT, tags={})
        decide(lake, registry, use_case, report.version, COMMIT, decided_by="test")
    scored = Window(midnight(CUTOFFS[0]), midnight(DAYS))
    score(lake, registry, use_case, scored, COMMIT)
    report_drift(lake, registry, use_case, scored, COMMIT)
    report_performance(lake, use_case, scored, COMMIT, now=midnight(DAYS + 9))
    pages = Pages(settings)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(build_app(pages), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        while pages.observer.of(pages.site.use_case("moods")) is None:
            time.sleep(0.05)
        yield Site(address, pages, lake, registry, use_case)
        server.should_exit = True
        thread.join()
    lake.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with opened_browser() as opened:
        yield opened


@pytest.mark.parametrize(
    ("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390), ("dark", 390)]
)
def test_every_page_is_readable_and_asks_nobody_else(
    site: Site, browser: Any, scheme: str, width: int
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    context = browser.new_context(
        color_scheme=scheme,
        viewport={"width": width, "height": 900},
        # axe is a script, which no page allows.
        bypass_csp=True,
    )
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    found: dict[str, list[tuple[str, str]]] = {}
    for path in site.paths:
        page.goto(f"{site.address}{path}")
        root = "document.documentElement"
        # What does not fit scrolls in its own box.
        assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), path
        violations = Axe().run(page).response["violations"]
        serious = [v for v in violations if v["impact"] in {"serious", "critical"}]
        if serious:
            found[path] = [(v["id"], v["nodes"][0]["html"][:200]) for v in serious]
    context.close()
    assert found == {}
    assert [url for url in asked if not url.startswith((site.address, "data:"))] == []


def test_no_page_breaks_its_own_policy(site: Site, browser: Any) -> None:
    page = browser.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    for path in site.paths:
        page.goto(f"{site.address}{path}")
    page.close()
    # The browser itself says that a page was not found.
    assert [text for text in said if "404" not in text] == []


def test_the_keyboard_reaches_what_the_pointer_does(site: Site, browser: Any) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    page.goto(f"{site.address}/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.get_by_role("link", name="moods", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.address}/moods/")
    page.get_by_role("link", name="Look up a prediction").focus()
    page.keyboard.press("Enter")
    page.get_by_label("trip").fill("1")
    page.keyboard.press("Enter")
    expect(page.get_by_text("has no prediction")).to_be_visible()
    page.close()


def test_a_point_leads_to_its_partition(site: Site, browser: Any) -> None:
    from playwright.sync_api import expect

    page = browser.new_page()
    page.goto(f"{site.address}/moods/")
    page.locator(f'.diagram a[href="/moods/drift/{KEY}"]').first.click()
    expect(page.get_by_role("heading", name=f"Drift of {KEY}")).to_be_visible()
    page.get_by_role("link", name="←").click()
    expect(page.get_by_role("heading", name=f"Drift of {moods.day(20)}")).to_be_visible()
    page.close()


def test_a_versions_card_says_what_it_was_made_of(site: Site, browser: Any) -> None:
    card = read_card(site.lake, site.registry, site.use_case, 1)
    assert card.rows_fitted is not None
    assert card.decisions[0].decision == "promoted"
    assert card.holdout["roc_auc"] == card.model.metrics["holdout_roc_auc"]
    page = browser.new_page()
    page.goto(f"{site.address}/moods/versions/1")
    said = page.locator("main").inner_text()
    assert f"{card.rows_fitted:,} rows" in said
    assert card.decisions[0].reason in said
    assert all(column in said for column, _ in card.importances)
    assert page.get_by_alt_text("roc on held-out rows").is_visible()
    answer = page.request.get(f"{site.address}/moods/versions/1.md")
    assert answer.text() == card_markdown(card)
    assert page.request.get(f"{site.address}/moods/versions/99").status == 404
    page.close()


def test_a_prediction_is_followed_to_files_and_commit(site: Site, browser: Any) -> None:
    path = next(path for path in site.paths if "trip=" in path)
    page = browser.new_page()
    page.goto(f"{site.address}{path}")
    said = page.locator("main").inner_text()
    assert "Features that it was given" in said
    assert f"{moods.day(DAYS - 1)}.csv" in said
    page.get_by_role("link", name="version ").click()
    assert "/moods/versions/" in page.url
    page.close()


def test_a_row_and_a_version_are_followed_forwards(site: Site, browser: Any) -> None:
    from playwright.sync_api import expect

    path = next(path for path in site.paths if "trip=" in path)
    page = browser.new_page()
    page.goto(f"{site.address}{path}")
    trip = path.partition("trip=")[2]
    page.get_by_role("link", name="row ").first.click()
    expect(
        page.get_by_role("heading", name=f"What row trip={trip} of trips touched")
    ).to_be_visible()
    page.get_by_role("link", name="Count the rows that depend on it").click()
    expect(page.get_by_role("columnheader", name="Rows that depend on it")).to_be_visible()
    features = page.get_by_role("row", name="pace_features")
    expect(features).to_contain_text(f"1 in {moods.day(DAYS - 1)}")
    page.get_by_role("link", name="JSON").click()
    found = page.request.get(page.url).json()
    last = {str(moods.day(DAYS - 1)): 1}
    assert found["tables"]["pace_features"]["dependent_rows"] == last
    assert found["tables"]["predictions"]["dependent_rows"] == last
    page.goto(f"{site.address}/moods/versions/1")
    page.get_by_role("link", name="what it touched").click()
    expect(page.get_by_role("heading", name="What version 1 touched")).to_be_visible()
    expect(page.get_by_text("Compared with it as champion")).to_be_visible()
    page.get_by_role("row", name="drift_report").get_by_role("group").click()
    page.get_by_role("link", name=str(moods.day(CUTOFFS[0]))).last.click()
    assert "/moods/" in page.url
    page.close()
