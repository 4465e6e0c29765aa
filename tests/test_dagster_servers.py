"""The real Dagster servers and a real browser on a small use case."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import trips_use_case as trips

from ml_platform.settings import Settings

ROOT = Path(__file__).parents[1]
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A project of its own: use case, landing, Dagster home."""
    root = tmp_path_factory.mktemp("servers")
    trips.write_folder(root / "use_cases", "binary")
    data = root / "data"
    folder = Path(Settings(data=data).landing_uri) / "trips"
    folder.mkdir(parents=True)
    rows = trips.trips(1, 5)
    for day, part in rows.groupby(rows["started_at"].dt.strftime("%Y-%m-%d")):
        part.to_csv(folder / f"{day}.csv", index=False)
    home = data / "dagster"
    home.mkdir(parents=True)
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "ML_PLATFORM_DATA": str(data),
        "ML_PLATFORM_USE_CASES": str(root / "use_cases"),
        "DAGSTER_HOME": str(home),
        "DAGSTER_EVENT_BATCH_SIZE": "1000",
    }


@pytest.fixture(scope="module")
def launched(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [
        "dg", "launch", "--assets", "key:trips/trips",
        "--partition-range", "2024-03-01...2024-03-05",
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
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


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def address(
    launched: subprocess.CompletedProcess[str], environment: dict[str, str]
) -> Iterator[str]:
    port = free_port()
    # Background jobs of a shell ignore SIGINT, and Dagster hands that on to SIGTERM.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    server = subprocess.Popen(
        ["dg", "dev", "--host", "127.0.0.1", "--port", str(port)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    signal.signal(signal.SIGINT, before)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                with urlopen(f"{url}/server_info", timeout=5):
                    break
            except (URLError, OSError):
                time.sleep(1)
        yield url
    finally:
        server.terminate()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_ui_shows_lineage_and_partitions(address: str) -> None:
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        page = browser.new_page(viewport={"width": 1600, "height": 1000})
        page.goto(f"{address}/asset-groups", timeout=120_000)
        expect(page.get_by_text("drift_report").first).to_be_visible(timeout=120_000)
        page.goto(f"{address}/assets/trips/trips?view=partitions&partition=2024-03-03")
        expect(page.get_by_text("quarantined").first).to_be_visible(timeout=120_000)
        browser.close()
