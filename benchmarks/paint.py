"""How soon a person sees each page: first paint in a headless Chromium.

`python -m benchmarks.paint`, with `ml-platform pages` running over the deployment that is asked
about. Of each page of the first use case and of those for all, several visits, each in a new
browser context; what the server took is the time until the first byte.
"""

import argparse
import re
import shutil
import statistics
import sys
from typing import Any
from urllib.request import urlopen

LIMIT_MS = 300
PAINTED = """() => {
    const [page] = performance.getEntriesByType("navigation");
    const [paint] = performance.getEntriesByName("first-contentful-paint");
    if (!paint) return null;
    return [paint.startTime, page.responseStart - page.requestStart, page.decodedBodySize];
}"""


def main() -> None:
    """Print a line for each page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paint", description=__doc__)
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:3001")
    parser.add_argument("--visits", type=int, default=9)
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("no Chromium on this machine")
    print(f"{'page':44} {'first paint ms':>14} {'worst':>7} {'server ms':>9} {'KB':>6}")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for path in _paths(asked.address):
            seen = [_visit(browser, f"{asked.address}{path}") for _ in range(asked.visits + 1)]
            paints, servers, sizes = zip(*seen[1:], strict=True)
            paint = statistics.median(paints)
            over = "" if paint <= LIMIT_MS else f"  over {LIMIT_MS}"
            print(
                f"{path:44} {paint:14.0f} {max(paints):7.0f} {statistics.median(servers):9.0f} "
                f"{sizes[0] / 1024:6.0f}{over}"
            )
        browser.close()


def _visit(browser: Any, url: str) -> tuple[float, float, float]:
    context = browser.new_context()
    page = context.new_page()
    page.goto(url, wait_until="load")
    found: list[float] | None = None
    # The policy of the pages keeps Playwright from waiting in the page itself.
    while found is None:
        found = page.evaluate(PAINTED)
    context.close()
    return found[0], found[1], found[2]


def _paths(address: str) -> list[str]:
    """`/` and the other pages for all; of a use case one page of each kind that its page names."""
    first = _read(f"{address}/")
    cases = re.findall(r'<a href="(/[a-z0-9_]+/)">', first)
    found = ["/", "/approvals", "/audit"]
    for case in cases[:1]:
        page = _read(f"{address}{case}")
        found.append(case)
        for kind in ("drift", "performance", "versions"):
            found += re.findall(rf'href="({case}{kind}/[^"?]+)"', page)[-1:]
        found += re.findall(rf'href="({case}(?:rollouts|retraining|costs|review))"', page)
    return list(dict.fromkeys(found))


def _read(url: str) -> str:
    with urlopen(url) as answer:
        return str(answer.read().decode())


if __name__ == "__main__":
    main()
