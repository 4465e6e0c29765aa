"""What every project has is there and agrees: licence, changelog, links, pages, typed wheel."""

import importlib.util
import re
import runpy
import subprocess
import tomllib
import zipfile
from datetime import date
from pathlib import Path

import pytest
import yaml

from tests.installations import build_wheel

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
SITE = runpy.run_path(str(ROOT / "docs" / "pages.py"))
"""What collects the pages of the docs site."""
FENCE = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def markdown() -> list[Path]:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in found.stdout.splitlines()]


def test_the_files_that_others_look_for_are_there() -> None:
    names = {
        "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "README.md",
        ".github/PULL_REQUEST_TEMPLATE.md", ".github/ISSUE_TEMPLATE/config.yml",
    }  # fmt: skip
    assert [name for name in sorted(names) if not (ROOT / name).is_file()] == []


def test_the_licence_is_whole_and_named() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert "Copyright 2026 The ml-platform authors" in text
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])


def test_the_newest_release_of_the_changelog_is_this_version_or_the_one_before() -> None:
    unreleased, *releases = re.findall(r"^## (.+)$", CHANGELOG, re.MULTILINE)
    assert unreleased == "Unreleased"
    versions, days = zip(*(release.split(" - ") for release in releases), strict=True)
    is_under_way = ".dev" in PROJECT["version"]
    assert is_under_way == bool(unreleased_changes())
    assert is_under_way or versions[0] == PROJECT["version"]
    assert list(days) == sorted(days, reverse=True)
    assert all(date.fromisoformat(day) for day in days)


def unreleased_changes() -> str:
    """What the changelog says of the version that is under way."""
    return re.split(r"^## .+$", CHANGELOG, flags=re.MULTILINE)[1].strip()


def test_the_changelog_has_the_sections_of_keep_a_changelog() -> None:
    sections = set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE))
    assert sections <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("name", ["bug", "docs", "feature"])
def test_an_issue_form_has_what_its_host_asks_for(name: str) -> None:
    path = ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml"
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form.keys() == {"name", "description", "labels", "body"}
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in fields)
    ids = [field["id"] for field in fields]
    assert len(ids) == len(set(ids)) > 0


def anchors(path: Path) -> set[str]:
    """What GitHub, and the site generator likewise, call the headings of a page."""
    text = FENCE.sub("", path.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", markdown(), ids=lambda page: page.relative_to(ROOT).as_posix())
def test_each_link_within_the_repository_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    dead = []
    for link in LINK.findall(text):
        target, _, anchor = link.partition("#")
        if "://" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(link)
    assert dead == []


def test_the_navigation_of_the_docs_has_every_page_once() -> None:
    listed = SITE["navigation"]()
    pages = [page for page in listed if not page.startswith(SITE["REFERENCE"])]
    assert sorted(pages) == sorted(SITE["pages"]().values())
    assert len(listed) == len(set(listed))


def test_the_reference_has_modules_that_there_are() -> None:
    pages = [page for page in SITE["navigation"]() if page.startswith(SITE["REFERENCE"])]
    modules = [Path(page).name.removesuffix(".md") for page in pages]
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []


def test_links_are_moved_to_where_their_targets_are_in_the_site() -> None:
    places = {"README.md": "index.md", "docs/a.md": "a.md", "examples/b/README.md": "examples/b.md"}
    moved = SITE["relinked"]
    assert moved("[a](docs/a.md#x)", "README.md", places) == "[a](a.md#x)"
    assert moved("[a](../../docs/a.md)", "examples/b/README.md", places) == "[a](../a.md)"
    assert moved("[b](../examples/b/README.md)", "docs/a.md", places) == "[b](examples/b.md)"
    assert moved("[a.py](../lib/a.py)", "docs/a.md", places) == "`lib/a.py`"
    assert moved("[the code](../lib/a.py)", "docs/a.md", places) == "the code (`lib/a.py`)"
    assert moved("[`code` there](#x)", "docs/a.md", places) == "[`code` there](#x)"
    kept = "`[a](docs/a.md)`\n```\n[a](docs/a.md)\n```\n[out](https://example.org)"
    assert moved(kept, "README.md", places) == kept


def test_the_wheel_is_typed_and_has_the_licence(tmp_path: Path) -> None:
    with zipfile.ZipFile(build_wheel(tmp_path)) as wheel:
        names = set(wheel.namelist())
    packages = {name.partition("/")[0] for name in names if name.endswith(".py")}
    assert packages >= {"ml_platform", "ml_platform_dagster"}
    assert [name for name in sorted(packages) if f"{name}/py.typed" not in names] == []
    assert f"ml_platform-{PROJECT['version']}.dist-info/licenses/LICENSE" in names
