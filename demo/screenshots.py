"""Images of README and docs, of what `make demo` has made: `make screenshots`.

Pages and Dagster's lineage are taken with Chromium; the picture of a replay takes a replay of the
year, which takes minutes. `python -m demo.screenshots page_drift` takes one of them.
"""

import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError
from urllib.request import urlopen

from demo.figures import DemoNotMade, replay, require_demo
from demo.images import FOLDER, IMAGES, note
from demo.ranges import flown_range
from demo.year_picture import draw_year
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Lake

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAME, DAY, VERSION = "flight_delays", "2013-12-31", 9
WIDTH, HEIGHT = 1280, 900
PAGES = {
    "page_use_case": f"/{NAME}/",
    "page_drift": f"/{NAME}/drift/{DAY}",
    "page_version": f"/{NAME}/versions/{VERSION}",
}
"""Address of each page by the name of its image; what fits on a screen is taken."""
LINEAGE = f"/locations/ml-platform/asset-groups/{NAME}/lineage"
NAVIGATION = 240
"""Pixels at the left of Dagster's pages."""
SEEN_WITHIN_MILLISECONDS = 180_000
"""Dagster loads the code first, which takes long on a busy machine."""


def main(asked: list[str]) -> None:
    """Take the images that are named, or all of them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium to take screenshots with.")
    if unknown := [name for name in asked if name not in IMAGES]:
        sys.exit(f"No image {', '.join(unknown)}; there are {', '.join(IMAGES)}.")
    settings = Settings()
    use_case = load_use_case(settings.use_cases / NAME)
    with closing(Lake(settings)) as lake:
        try:
            require_demo(lake, use_case)
        except DemoNotMade as error:
            sys.exit(str(error))
        taken = [name for name in IMAGES if name in asked or not asked]
        if "year" in taken:
            draw_year(lake, use_case, flown_range(use_case), FOLDER / "year.png")
    if "replay" in taken:
        shutil.copyfile(replay(settings)["picture"], FOLDER / "replay.png")
    with _browser(chromium) as browser:
        if pages := [name for name in PAGES if name in taken]:
            _take_pages(browser, pages)
        if "lineage" in taken:
            _take_lineage(browser, settings)
    for name in taken:
        note(name)


@contextmanager
def _browser(chromium: str) -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()


def _take_pages(browser: "Browser", names: list[str]) -> None:
    with _served() as address:
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name in names:
            answer = page.goto(f"{address}{PAGES[name]}")
            if answer is None or answer.status != 200:
                sys.exit(f"{PAGES[name]} cannot be shown.")
            # What is wrong with a part of a page is said in it, under status 200.
            if problems := page.locator("p.note").all_inner_texts():
                sys.exit(f"{PAGES[name]}: {problems[0]}")
            page.screenshot(path=FOLDER / f"{name}.png")


@contextmanager
def _served() -> Iterator[str]:
    """The address of pages that have read the use case."""
    import uvicorn

    from ml_platform.web import Pages, build_app

    pages = Pages(Settings())
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server: Any = uvicorn.Server(uvicorn.Config(build_app(pages), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        case = pages.site.use_case(NAME)
        try:
            while pages.observer.of(case) is None:
                time.sleep(0.2)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _take_lineage(browser: "Browser", settings: Settings) -> None:
    """Dagster's graph of the use case, with what its runs have filled, but not its navigation."""
    with _dagster(settings) as address:
        page = browser.new_page(viewport={"width": NAVIGATION + 1460, "height": 1600})
        page.goto(f"{address}{LINEAGE}", timeout=SEEN_WITHIN_MILLISECONDS)
        page.get_by_text("% filled").nth(10).wait_for(timeout=SEEN_WITHIN_MILLISECONDS)
        page.wait_for_load_state("networkidle")
        clip: Any = {"x": NAVIGATION, "y": 0, "width": 1460, "height": 1600}
        page.screenshot(path=FOLDER / "lineage.png", clip=clip)


@contextmanager
def _dagster(settings: Settings) -> Iterator[str]:
    """The address of a web server of Dagster that starts nothing, over the runs of the demo."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "DAGSTER_HOME": str((settings.root / "dagster").resolve()),
        "PATH": f"{folder}:{os.environ['PATH']}",
    }
    command = [str(folder / "dagster-webserver"), "--read-only", "--port", str(port)]
    server = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not _answers(address := f"http://127.0.0.1:{port}"):
            if server.poll() is not None:
                sys.exit("dagster-webserver has ended.")
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(f"{address}/server_info"):
            return True
    except URLError:
        return False


if __name__ == "__main__":
    main(sys.argv[1:])
