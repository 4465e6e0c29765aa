"""Screenshots of the pages over the demo's lake, for README and docs: `make screenshots`.

They need `make demo` to have run, and Chromium.
"""

import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_platform.settings import Settings

IMAGES = Path("docs/images")
USE_CASE, DAY, VERSION = "flight_delays", "2013-12-31", 9
WIDTH, HEIGHT = 1280, 900
SHOWN = {
    "page_use_case": f"/{USE_CASE}/",
    "page_drift": f"/{USE_CASE}/drift/{DAY}",
    "page_version": f"/{USE_CASE}/versions/{VERSION}",
}
"""Address of each page by the name of its image; what fits on a screen is taken."""


def main() -> None:
    """Take all of them."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium to take screenshots with.")
    from playwright.sync_api import sync_playwright

    with _served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        for name, path in SHOWN.items():
            answer = page.goto(f"{address}{path}")
            if answer is None or answer.status != 200:
                sys.exit(f"{path} cannot be shown; `make demo` makes what it shows.")
            page.screenshot(path=IMAGES / f"{name}.png")
        browser.close()


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
        case = pages.site.use_case(USE_CASE)
        while pages.observer.of(case) is None:
            time.sleep(0.2)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
