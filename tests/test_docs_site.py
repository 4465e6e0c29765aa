"""The docs site that `make docs` has built: whole, from no other host, with a search that finds."""

import re
import runpy
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.browsers import opened_browser

ROOT = Path(__file__).parents[1]
SITE = ROOT / "site"
LOADED = {("link", "href"), ("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src")}
"""Tags and attributes whose address a browser loads by itself."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.every_case,
    pytest.mark.skipif(not (SITE / "index.html").is_file(), reason="`make docs` was not run"),
]


class Loads(HTMLParser):
    """Addresses that a page has a browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if (tag, name) in LOADED]


def test_every_page_of_the_navigation_is_there() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "pages.py"))["navigation"]()
    folders = ["" if page == "index.md" else page.removesuffix(".md") for page in pages]
    assert [name for name in folders if not (SITE / name / "index.html").is_file()] == []


def test_no_page_loads_anything_from_another_host() -> None:
    elsewhere = {}
    for page in SITE.rglob("*.html"):
        loads = Loads()
        loads.feed(page.read_text(encoding="utf-8"))
        outside = [address for address in loads.found if re.match(r"(\w+:)?//", address)]
        elsewhere |= {str(page): outside} if outside else {}
    assert elsewhere == {}
    styles = "".join(path.read_text(encoding="utf-8") for path in SITE.rglob("*.css"))
    assert re.findall(r"""(?:@import\s*|url\()["']?(?:\w+:)?//[^)"']+""", styles) == []


def test_the_reference_shows_docstrings_with_their_examples() -> None:
    page = (SITE / "reference" / "ml_platform.access" / "index.html").read_text(encoding="utf-8")
    assert 'id="ml_platform.access.parse_grant"' in page
    assert "<blockquote>" not in page


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and logs nothing."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=SITE)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_pages_and_finds_a_word(address: str, scheme: str, width: int) -> None:
    from playwright.sync_api import expect

    with opened_browser() as browser:
        context = browser.new_context(
            color_scheme=scheme,  # type: ignore[arg-type]
            viewport={"width": width, "height": 900},
        )
        page = context.new_page()
        failed: list[str] = []
        asked: list[str] = []
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        for path in ("", "use_cases/", "reference/ml_platform.storage/"):
            page.goto(f"{address}/{path}")
            expect(page.locator("article h1")).to_be_visible()
            # What does not fit scrolls in its own box.
            root = "document.documentElement"
            assert page.evaluate(f"{root}.scrollWidth <= {root}.clientWidth"), path
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != (
            "rgb(255, 255, 255)"
        )
        assert dark == (scheme == "dark")
        opens = page.locator(".md-search__button, label[for=__search]")
        opens.filter(visible=True).first.click()
        page.get_by_role("combobox", name="Search").fill("champion_at")
        found = page.get_by_role("option", name="champion_at").first
        found.click()
        expect(page).to_have_url(re.compile(r"reference/ml_platform\.registry/"))
        assert failed == []
        assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
