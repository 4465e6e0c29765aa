"""Several processes compute one range, on one machine or as shares of several."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.backfill import due, judge
from ml_platform.backfill.local_run import compute
from ml_platform.backfill.workers import Share, Workers, wait_for_others
from ml_platform.errors import PlatformError
from ml_platform.features import compute_labels
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests.sparks import forget, rows_of
from tests.trips_use_case import COMMIT, days, land, trips, write_folder


@given(st.integers(1, 12), st.integers(1, 40))
def test_shares_are_a_whole(of: int, count: int) -> None:
    windows = [days(1, 3) for _ in range(count)]
    shares = [Share.parse(f"{number}/{of}").windows(windows) for number in range(1, of + 1)]
    assert [w for share in shares for w in share] == windows
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "a/b", "-1/2", "1/0"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(PlatformError, match="write 1/3, 2/3, 3/3"):
        Share.parse(text)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Lake, UseCase]:
    settings = Settings(data=tmp_path / "data", use_cases=tmp_path)
    lake, use_case = Lake(settings), write_folder(tmp_path, "binary")
    land(lake, use_case, trips(1, 12), days(1, 12))
    return lake, use_case


@pytest.mark.slow
def test_workers_compute_what_one_process_does(made: tuple[Lake, UseCase]) -> None:
    lake, case = made
    windows = list(case.calendar.windows(days(1, 12)))
    tables = ("pace_features", "labels")
    before = {table: rows_of(lake, case, table) for table in tables}
    workers = Workers(lake.settings, case, 3)
    try:
        for table in tables:
            forget(lake, case, table)
            workers.compute(table, windows, "run", None)
            assert rows_of(lake, case, table) == before[table]
        # One of them is killed, as by a machine that runs out of memory.
        forget(lake, case, "labels")
        killed = multiprocessing.active_children()
        assert killed
        for child in killed:
            child.kill()
        with pytest.raises(PlatformError, match="take fewer --workers"):
            workers.compute("labels", windows, "run", None)
    finally:
        workers.close()
    lake.close()


@pytest.mark.slow
def test_a_share_waits_for_what_it_needs_of_another(made: tuple[Lake, UseCase]) -> None:
    lake, case = made
    windows = list(case.calendar.windows(days(1, 12)))
    first, second = (Share(n, 2).windows(windows) for n in (1, 2))
    # The first share has its features to make; the second one's predictions read the last of them.
    for window in second:
        compute(lake, Registry(lake.settings), case, "pace_features", window, "run")
    assert len(due(judge(lake, case, days(1, 12), ["pace_features"])["pace_features"])) == 6
    said: list[str] = []
    waits = threading.Event()

    def wait() -> None:
        wait_for_others(
            lake, case, "predictions", days(7, 8), days(1, 12), ["pace_features", "predictions"],
            second, lambda text: (said.append(text), waits.set())[1],
        )  # fmt: skip

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert waits.wait(60)
    assert said == [
        "predictions waits for another share: pace_features 2024-03-06 and 0 more are due there"
    ]
    compute(lake, Registry(lake.settings), case, "pace_features", days(1, 6), "run")
    waiting.join(60)
    assert not waiting.is_alive()
    assert len(first) == len(second) == 6
    lake.close()


@pytest.mark.exhaustive
@pytest.mark.slow
def test_two_commands_share_a_range(made: tuple[Lake, UseCase]) -> None:
    lake, case = made
    compute_labels(lake, case, days(1, 12), COMMIT)
    tables = ("pace_features", "labels")
    before = {table: rows_of(lake, case, table) for table in tables}
    for table in tables:
        forget(lake, case, table)
    root = lake.settings.use_cases
    named = {"ML_PLATFORM_DATA": str(lake.settings.data), "ML_PLATFORM_USE_CASES": str(root)}
    commands = [
        subprocess.Popen(
            [sys.executable, "-m", "ml_platform.cli", "backfill", "trips", *tables, "--only",
             "--here", "--share", share, "--workers", workers],
            env={**os.environ, **named}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        )
        for share, workers in (("1/2", "2"), ("2/2", "1"))
    ]  # fmt: skip
    for command in commands:
        said, _ = command.communicate(timeout=300)
        assert command.returncode == 0, said
        assert "12 partitions were computed" in said
    assert {table: rows_of(lake, case, table) for table in tables} == before
    lake.close()


def test_what_is_of_here_alone_says_so(made: tuple[Lake, UseCase]) -> None:
    lake, _ = made
    named = {
        "ML_PLATFORM_DATA": str(lake.settings.data),
        "ML_PLATFORM_USE_CASES": str(lake.settings.use_cases),
    }
    done = subprocess.run(
        [sys.executable, "-m", "ml_platform.cli", "backfill", "trips", "--workers", "2"],
        env={**os.environ, **named}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "--workers and --share are of --here" in done.stderr
    lake.close()
