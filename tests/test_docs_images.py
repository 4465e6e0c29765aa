"""Images of docs: each is taken by `make screenshots`, and none is older than what draws it."""

import re
import shutil
from pathlib import Path

import pytest

from demo.images import FOLDER, IMAGES, ROOT, TAKEN, drawn_by, note, outdated
from tests.test_docs import PAGES

PAGE = "ml_platform/web/templates/drift.html"


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what images are drawn by, and of the images, as if they were taken just now."""
    for name in IMAGES:
        for place in drawn_by(name):
            if (ROOT / place).is_file():
                (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / place, tmp_path / place)
    shutil.copytree(ROOT / FOLDER, tmp_path / FOLDER)
    shutil.copytree(ROOT / "use_cases" / "flight_delays", tmp_path / "use_cases" / "flight_delays")
    for name in IMAGES:
        note(name, tmp_path)
    return tmp_path


def test_no_image_is_older_than_what_draws_it() -> None:
    assert list(outdated()) == [], "run make screenshots after make demo"


def test_docs_show_the_images_that_are_taken_and_no_other() -> None:
    shown = {
        name
        for page in PAGES
        for name in re.findall(r"!\[[^\]]*\]\((?:docs/)?images/(\w+)\.png\)", page.read_text())
    }
    assert shown == {*IMAGES} == {file.stem for file in (ROOT / FOLDER).glob("*.png")}


def test_an_image_whose_template_changed_is_named(checkout: Path) -> None:
    assert list(outdated(checkout)) == []
    with (checkout / PAGE).open("a") as template:
        template.write("<p>more</p>\n")
    assert list(outdated(checkout)) == [f"page_drift.png is older than {PAGE}"]
    note("page_drift", checkout)
    assert list(outdated(checkout)) == []


def test_a_style_that_changed_dates_every_page(checkout: Path) -> None:
    style = "ml_platform/html/templates/base.css"
    (checkout / style).write_text("body { margin: 0 }\n")
    pages = sorted(name for name in IMAGES if name.startswith("page_"))
    assert sorted(outdated(checkout)) == [f"{name}.png is older than {style}" for name in pages]


def test_another_feature_view_dates_the_lineage(checkout: Path) -> None:
    spec = checkout / "use_cases" / "flight_delays" / "use_case.yaml"
    view = "  weather: {entity: [origin],"
    assert view in spec.read_text()
    other = "  sky: {sql: features/weather.sql, entity: [origin],"
    spec.write_text(spec.read_text().replace(view, other))
    assert list(outdated(checkout)) == ["lineage.png is older than tables of flight_delays"]


def test_an_image_that_was_not_taken_or_is_another_one_is_named(checkout: Path) -> None:
    shutil.copy(checkout / FOLDER / "year.png", checkout / FOLDER / "replay.png")
    (checkout / FOLDER / "lineage.png").unlink()
    assert sorted(outdated(checkout)) == [
        "lineage.png was never taken",
        "replay.png is not the one that was taken",
    ]
    (checkout / TAKEN).unlink()
    assert len(list(outdated(checkout))) == len(IMAGES)
