"""The real Dagster servers and a real browser on a small use case."""

import subprocess
from collections.abc import Iterator

import pytest

from tests import dagster_servers as servers
from tests.browsers import needs_chromium, opened_browser

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return servers.project(tmp_path_factory.mktemp("servers"), 1, 5)


@pytest.fixture(scope="module")
def launched(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [
        "dg", "launch", "--assets", "key:trips/trips",
        "--partition-range", "2024-03-01...2024-03-05",
    ]  # fmt: skip
    return subprocess.run(
        command,
        cwd=servers.ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_dg_launch_materialises_a_range_in_one_run(
    launched: subprocess.CompletedProcess[str], environment: dict[str, str]
) -> None:
    assert launched.returncode == 0, launched.stderr[-3000:]
    import dagster as dg

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
        instance = dg.DagsterInstance.from_config(environment["DAGSTER_HOME"])
        there = instance.get_materialized_partitions(dg.AssetKey(["trips", "trips"]))
        assert there == {f"2024-03-0{day}" for day in range(1, 6)}
        assert instance.get_runs_count() == 1
        instance.dispose()


@pytest.fixture(scope="module")
def address(
    launched: subprocess.CompletedProcess[str], environment: dict[str, str]
) -> Iterator[str]:
    with servers.dagster_dev(environment) as url:
        yield url


@needs_chromium
def test_the_ui_shows_lineage_and_partitions(address: str) -> None:
    from playwright.sync_api import expect

    with opened_browser() as browser:
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(f"{address}/asset-groups", timeout=120_000)
        expect(page.get_by_text("drift_report").first).to_be_visible(timeout=120_000)
        page.goto(f"{address}/assets/trips/trips?view=partitions&partition=2024-03-03")
        expect(page.get_by_text("quarantined").first).to_be_visible(timeout=120_000)
