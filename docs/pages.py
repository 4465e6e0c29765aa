"""Collect the pages of the docs site in `build/docs`, where the site generator reads them.

The repository's Markdown is also read where it lies: the home page is README.md, and links lead to
files that are not part of the site. Here each page gets its place in the site, and links follow.
A link to a file that is no page becomes the file's path, since the site has no address of the
repository. Pages of the API reference are written from the navigation, one for each module there.

Needs nothing but Python, so that the environment of the generator can run it.
"""

import re
import shutil
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

ROOT = Path(__file__).parents[1]
COLLECTED = ROOT / "build" / "docs"
REFERENCE = "reference/"
LINK = re.compile(
    r"^ *```.*?^ *```$|`[^`\n]+`|(?P<opening>!?\[)(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)",
    re.MULTILINE | re.DOTALL,
)
"""A link or an image; code comes first in the pattern, so that no link is found inside it."""


def pages() -> dict[str, str]:
    """Page of the site by file of the repository."""
    places = {"README.md": "index.md"}
    places |= {
        f"{name}.md": f"{name.lower()}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")
    }
    places |= {f"docs/{path.name}": path.name for path in sorted((ROOT / "docs").glob("*.md"))}
    for folder in ("examples", "use_cases"):
        for path in sorted((ROOT / folder).glob("*/README.md")):
            places[path.relative_to(ROOT).as_posix()] = f"examples/{path.parent.name}.md"
    return places


def images() -> dict[str, str]:
    """Image of the site by file of the repository."""
    found = sorted((ROOT / "docs" / "images").glob("*.png"))
    return {f"docs/images/{path.name}": f"images/{path.name}" for path in found}


def relinked(text: str, source: str, places: Mapping[str, str]) -> str:
    """The text of the file `source` with links between pages of the site."""

    def moved(link: re.Match[str]) -> str:
        target, _, anchor = (link["target"] or "").partition("#")
        if not target or "://" in target:
            return link[0]
        path = normpath(f"{PurePosixPath(source).parent}/{target}")
        if path not in places:
            is_named = link["text"].strip("`") in path
            return f"`{path}`" if is_named else f"{link['text']} (`{path}`)"
        here = PurePosixPath(places[source]).parent.as_posix()
        fragment = anchor and f"#{anchor}"
        return f"{link['opening']}{link['text']}]({relpath(places[path], here)}{fragment})"

    return LINK.sub(moved, text)


def navigation() -> list[str]:
    """Pages of the navigation, in order."""
    with (ROOT / "zensical.toml").open("rb") as file:
        return list(_listed(tomllib.load(file)["project"]["nav"]))


def _listed(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
        return
    for inner in entry.values() if isinstance(entry, dict) else entry:
        yield from _listed(inner)


def collect(folder: Path) -> None:
    """Write all pages and images into a new folder."""
    places = pages() | images()
    for source, place in places.items():
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            text = (ROOT / source).read_text(encoding="utf-8")
            target.write_text(relinked(text, source, places), encoding="utf-8")
        else:
            shutil.copyfile(ROOT / source, target)
    (folder / REFERENCE).mkdir()
    for place in navigation():
        if place.startswith(REFERENCE):
            module = PurePosixPath(place).stem
            (folder / place).write_text(f"# `{module}`\n\n::: {module}\n", encoding="utf-8")


if __name__ == "__main__":
    shutil.rmtree(COLLECTED, ignore_errors=True)
    collect(COLLECTED)
