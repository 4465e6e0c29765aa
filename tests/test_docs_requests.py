"""Requests of the pages, pasted as they stand: answered as printed, on the flights of the demo.

The lake has the last days of the demo's year, so that the same rows are asked for and the same
features are found; figures and numbers of versions are others.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner

from demo.source_system import flight_days, land_flights
from ml_platform.cli.app import app
from ml_platform.registry import Promotion, record
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Commit, Lake
from tests.service_processes import Instance, serving, wait_for
from tests.test_docs import BLOCKS, ROOT, Block

pytestmark = [
    pytest.mark.slow,
    pytest.mark.every_case,
    pytest.mark.skipif(
        None in {shutil.which("curl"), shutil.which("jq")}, reason="curl or jq is not installed"
    ),
]
SERVICE = re.compile(r"(?:http://)?(?:localhost|127\.0\.0\.1):8080")
FIRST, LAST = "2013-12-17", "2014-01-01"
"""Enough days to train on, and with them the features of the last ones."""
BETWEEN = "-- the next one --"
"""Printed after each line of a block."""
ELSEWHERE = ("ml-platform", ".venv/bin/ml-platform")
"""Lines that `test_docs` runs."""
NEEDS_DAGSTER = re.compile(r"/train|/score|/runs")
CERTAIN = "uncertain: [0.45, 0.55]"


def asking() -> list[Any]:
    """Blocks that ask the service, each with what is printed after it."""
    found = []
    for number, block in enumerate(BLOCKS):
        if block.language == "sh" and block.why_not is None and SERVICE.search(block.text):
            after = BLOCKS[number + 1] if number + 1 < len(BLOCKS) else block
            follows = after.page == block.page and after.line == block.line + _lines(block) + 2
            printed = after.text if follows and after.language == "json" else None
            found.append(pytest.param(block, printed, id=str(block)))
    return found


def _lines(block: Block) -> int:
    return block.text.count("\n")


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """A service of the last flights of the year, two versions of which served."""
    root = tmp_path_factory.mktemp("requests")
    shutil.copytree(ROOT / "use_cases" / "flight_delays", root / "use_cases" / "flight_delays")
    spec = root / "use_cases" / "flight_delays" / "use_case.yaml"
    assert CERTAIN in spec.read_text()
    # So that whatever was predicted waits for a person.
    spec.write_text(spec.read_text().replace(CERTAIN, "uncertain: [0.0, 1.0]"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(root / "use_cases"))
        patch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
        patch.setenv("USER", "ada")
        chosen = [day for day in flight_days() if FIRST <= str(day) <= LAST]
        land_flights(root / "data" / "landing" / "flight_delays", chosen)

        def run(*words: str) -> None:
            done = CliRunner().invoke(app, [words[0], "flight_delays", *words[1:]])
            assert done.exit_code == 0, (words, done.output, done.exception)

        days = f"{FIRST}...{LAST}"
        for name in ("ingest", "features", "labels"):
            run(name, "--range", days)
        for version, cutoff in enumerate(("2013-12-28", "2013-12-30"), start=1):
            run("train", "--cutoff", cutoff)
            have_serve(version, cutoff)
        for name in ("score", "drift", "performance"):
            run(name, "--range", "2013-12-30...2013-12-31")
        run("publish")
        made = SimpleNamespace(settings=Settings())
        with serving(made, workers=1, LOG_SECONDS="0.2") as instance:
            have_one_wait(root, instance)
            run("ingest", "--range", "2013-12-30...2013-12-30")
            yield SimpleNamespace(root=root, instance=instance)


def have_serve(version: int, cutoff: str) -> None:
    """Promote a version from its cutoff on, whatever the gate would say of so few days."""
    settings = Settings()
    case = load_use_case(settings.use_cases / "flight_delays")
    moment = case.calendar.window(cutoff).start
    lake = Lake(settings)
    row = Promotion(version, moment, datetime.now(UTC), "ada", "promoted", "for the test")
    assert record(lake, case, row, Commit("test", "test"))
    lake.close()


def have_one_wait(root: Path, instance: Instance) -> None:
    """Ask for the example of openapi.json, which lands in the log and then waits for a person."""
    paths = httpx2.get(f"{instance.address}/openapi.json", timeout=60).json()["paths"]
    post = paths["/predict/flight_delays"]["post"]
    example = post["requestBody"]["content"]["application/json"]["example"]
    answer = httpx2.post(f"{instance.address}/predict/flight_delays", json=example, timeout=60)
    assert answer.json()["predictions"][0]["not_found"] == {}
    landing = root / "data" / "landing" / "flight_delays" / "requests"
    wait_for(lambda: any(landing.glob("*.jsonl")), "the request lands")


def answers(block: Block, flights: SimpleNamespace) -> list[str]:
    """What each line of a block prints, asked of the service that runs here."""
    address = flights.instance.address
    asked = [line for line in block.text.splitlines() if not line.startswith(ELSEWHERE)]
    script = "".join(f"{SERVICE.sub(address, line)}\necho '{BETWEEN}'\n" for line in asked)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=flights.root, env={**os.environ, "KEY": "none"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    printed = done.stdout.split(f"{BETWEEN}\n")
    return [text.strip() for text in printed if text.strip()]


@pytest.mark.exhaustive
@pytest.mark.parametrize(("block", "printed"), asking())
def test_requests_are_answered_as_printed(
    block: Block, printed: str | None, flights: SimpleNamespace
) -> None:
    assert not re.search(r"-(d|-json) .*…", block.text)
    said = answers(block, flights)
    bodies = [json.loads(re.sub(r"^HTTP/1.1 .*?\n\n", "", t.replace("\r", ""), flags=re.DOTALL))
              for t in said]  # fmt: skip
    if printed is not None:
        assert alike(json.loads(printed), bodies[-1]), bodies[-1]
        return
    unavailable = bool(NEEDS_DAGSTER.search(block.text))
    for body in bodies:
        status = body.get("status", 200)
        assert status < 400 or (unavailable and status in {503, 404}), body


def alike(printed: Any, got: Any) -> bool:
    """Whether an answer is as printed but for figures, numbers of versions and texts."""
    match printed, got:
        case dict(), dict():
            same = printed.keys() == got.keys()
            return same and all(alike(value, got[name]) for name, value in printed.items())
        case list(), list():
            return not printed or (bool(got) and alike(printed[0], got[0]))
        case bool(), bool():
            return printed == got
    return isinstance(got, int | float if isinstance(printed, int | float) else type(printed))
