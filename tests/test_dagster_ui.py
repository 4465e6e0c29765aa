"""What a person sees in the Dagster UI of a history that has ended, in a real browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import pytest

from ml_platform.settings import Settings
from ml_platform_dagster.definitions import build_definitions
from tests import dagster_servers as servers
from tests import trips_use_case as trips
from tests.browsers import needs_chromium, opened_browser
from tests.test_assets import Location

if TYPE_CHECKING:
    from playwright.sync_api import Page

WITHIN_MILLISECONDS = 120_000
NEWEST = """query($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) { ... on AssetNode {
    partitionKeyConnection(limit: 120, ascending: false) { results } } } }"""

pytestmark = [
    pytest.mark.slow,
    needs_chromium,
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A month that is over: a model of the 21st, which breaks its bound from then on."""
    environment = servers.project(tmp_path_factory.mktemp("ui"), 1, 28)
    folder = Path(environment["ML_PLATFORM_USE_CASES"]) / "trips"
    spec = folder / "use_case.yaml"
    spec.write_text(
        spec.read_text()
        .replace("start: 2024-03-01", "start: 2024-03-01, end: 2024-03-29")
        .replace(
            "monitoring: {",
            "monitoring: {performance: {min: 0.999}, drift: {threshold: 0.001, "
            "categorical_threshold: 0.001, min_rows: 30}, ",
        )
    )
    home = environment["DAGSTER_HOME"]
    with pytest.MonkeyPatch.context() as patch:
        for name in ("ML_PLATFORM_DATA", "ML_PLATFORM_USE_CASES", "DAGSTER_HOME"):
            patch.setenv(name, environment[name])
        settings = Settings()
        with dg.DagsterInstance.from_config(home) as instance:
            use_case = trips.load_use_case(folder)
            location = Location(use_case, settings, instance, build_definitions(settings))
            month = ("2024-03-01", "2024-03-28")
            assert location.run(["trips", "pace_features", "labels"], *month).success
            assert location.run(["model", "promotions"], "2024-03-21").success
            reports = ["predictions", "drift_report", "performance_report"]
            assert location.run(reports, "2024-03-21", "2024-03-28").success
    return environment


@pytest.fixture(scope="module")
def address(environment: dict[str, str]) -> Iterator[str]:
    with servers.dagster_dev(environment) as url:
        yield url


@pytest.fixture
def page(tmp_path: Path) -> Iterator["Page"]:
    """A browser's page, whose last state is kept as a picture beside the test's files."""
    with opened_browser() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1300})
        page.set_default_timeout(WITHIN_MILLISECONDS)
        yield page
        page.screenshot(path=tmp_path / "page.png")


@pytest.mark.exhaustive
def test_plots_show_the_last_partitions_of_the_history(address: str, page: "Page") -> None:
    for table in ("performance_report", "drift_report"):
        key = {"path": ["trips", table]}
        answer = page.request.post(
            f"{address}/graphql", data={"query": NEWEST, "variables": {"key": key}}
        ).json()
        newest = answer["data"]["assetNodeOrError"]["partitionKeyConnection"]["results"]
        assert newest == [f"2024-03-{day:02d}" for day in range(28, 0, -1)]
    page.goto(f"{address}/assets/trips/performance_report")
    page.get_by_role("button", name="Plots").click()
    plot = page.locator("canvas").first
    plot.wait_for()
    plot.scroll_into_view_if_needed()
    assert page.get_by_text("roc_auc", exact=True).count() == 1
    assert page.get_by_text("Asset plots are automatically generated").count() == 0


def test_a_report_shows_its_status_and_the_trend_in_its_place(address: str, page: "Page") -> None:
    page.goto(f"{address}/assets/trips/performance_report?view=partitions&partition=2024-03-28")
    page.get_by_text("out of bounds: roc_auc").wait_for()
    picture = page.get_by_alt_text("roc_auc")
    picture.wait_for()
    width = "element => element.complete && element.naturalWidth"
    assert picture.evaluate(width) == 434
    assert picture.evaluate("element => element.src").startswith("data:image/svg+xml,")
    page.get_by_text("roc_auc, 8 partitions from 2024-03-21 to 2024-03-28").wait_for()


def test_a_check_names_partition_columns_limits_and_page(address: str, page: "Page") -> None:
    page.goto(f"{address}/assets/trips/drift_report?view=checks")
    said = page.get_by_text("8 of 8 partitions failed, the newest of them 2024-03-28: ")
    said.wait_for()
    assert said.inner_text().count("(limit 0.001)") == 3
    link = said.get_by_role("link")
    assert str(link.get_attribute("href")).endswith("/trips/drift/2024-03-28")


@pytest.mark.exhaustive
def test_promotions_show_the_cutoffs_that_exist(address: str, page: "Page") -> None:
    page.goto(f"{address}/assets/trips/promotions")
    page.get_by_text("promotion gate", exact=True).wait_for()
    page.get_by_role("link", name="those that exist").click()
    page.get_by_text("1 Partitions Selected").wait_for()
    page.get_by_text("2024-03-21").first.wait_for()
    assert page.get_by_text("2024-03-20").count() == 0
