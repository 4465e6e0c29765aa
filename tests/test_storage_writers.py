"""Writers that run at the same time, and writers that are killed."""

import fcntl
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import pytest

from ml_platform.settings import Settings
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Commit, Lake, Table, replace_windows
from ml_platform.storage.attaching import turns_file

DAYS = Calendar.of(Cadence.daily, date(2013, 1, 1), "America/New_York")
TABLE = Table(
    "uc",
    "flights",
    {"flight": "BIGINT", "left_at": "TIMESTAMPTZ", "generation": "BIGINT"},
    order=("left_at", "flight"),
)
KILLS = 50
KILLED = Window(DAYS.window("2013-06-01").start, DAYS.window("2013-06-03").end)
ROWS_A_DAY = 100


def fill(lake: Lake, window_range: Window, generation: int, rows_a_day: int = ROWS_A_DAY) -> None:
    with lake.cursor("America/New_York") as cursor:
        replace_windows(
            lake,
            cursor,
            TABLE,
            f"""SELECT flight, day + INTERVAL 1 HOUR AS left_at, {generation} AS generation
            FROM generate_series(TIMESTAMPTZ '{window_range.start.isoformat()}',
                TIMESTAMPTZ '{window_range.end.isoformat()}' - INTERVAL 1 HOUR, INTERVAL 1 DAY)
                d(day),
            range({rows_a_day}) r(flight)""",
            time="left_at",
            calendar=DAYS,
            window_range=window_range,
            commit=Commit(f"run-{generation}", "code"),
        )


def fill_eight_days(settings: Settings, month: int, start: threading.Event) -> None:
    lake = Lake(settings)
    start.wait()
    for number in range(1, 9):
        fill(lake, DAYS.window(f"2013-{month:02d}-{number:02d}"), generation=month)


def fill_one_day_again_and_again(settings: Settings, writer: int, start: threading.Event) -> None:
    lake = Lake(settings)
    start.wait()
    for turn in range(4):
        fill(lake, DAYS.window("2013-12-01"), generation=100 * writer + turn)


def fill_until_killed(settings: Settings, writer: int, ready: Connection) -> None:
    lake = Lake(settings)
    with lake.cursor() as cursor:
        lake.snapshot(cursor)
    for turn in range(1000):
        ready.send(None)
        fill(lake, KILLED, 1000 * writer + turn, rows_a_day=1000)


@pytest.fixture(scope="module")
def processes():
    # Forked from a server that has imported everything, and that never opened a lake.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", __name__])
    return context


@pytest.fixture(scope="module")
def lake(catalog_settings):
    lake = Lake(catalog_settings)
    yield lake
    lake.close()


def run_at_once(
    processes, target: Callable[..., None], settings: Settings, count: int
) -> list[int | None]:
    start = processes.Event()
    writers: list[BaseProcess] = [
        processes.Process(target=target, args=(settings, number, start))
        for number in range(1, count + 1)
    ]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join()
    return [writer.exitcode for writer in writers]


@pytest.mark.slow
def test_eight_processes_that_create_the_lake_and_fill_eight_windows_each_lose_nothing(
    processes, catalog_settings, lake
):
    assert run_at_once(processes, fill_eight_days, catalog_settings, 8) == [0] * 8
    with lake.cursor() as cursor:
        windows = cursor.execute(
            """SELECT count(*) AS rows, count(DISTINCT flight), count(DISTINCT generation)
            FROM lake.uc.flights GROUP BY window_start"""
        ).fetchall()
        assert windows == [(ROWS_A_DAY, ROWS_A_DAY, 1)] * 64
        # One snapshot for the empty lake, one for each window.
        assert lake.snapshot(cursor) == 64


@pytest.mark.slow
def test_four_processes_that_fill_the_same_window_leave_the_rows_of_one(
    processes, catalog_settings, lake
):
    assert run_at_once(processes, fill_one_day_again_and_again, catalog_settings, 4) == [0] * 4
    with lake.cursor() as cursor:
        rows = cursor.execute(
            """SELECT count(*), count(DISTINCT flight), count(DISTINCT generation)
            FROM lake.uc.flights WHERE left_at >= '2013-12-01'"""
        ).fetchall()
    assert rows == [(ROWS_A_DAY, ROWS_A_DAY, 1)]


@pytest.mark.slow
def test_readers_see_whole_windows_while_writers_are_killed(processes, catalog_settings, lake):
    fill(lake, KILLED, generation=0, rows_a_day=1000)
    started = time.monotonic()
    fill(lake, KILLED, generation=1, rows_a_day=1000)
    duration = time.monotonic() - started
    seen, stop = set(), threading.Event()

    def look() -> None:
        with lake.cursor() as cursor:
            while not stop.is_set():
                seen.update(
                    cursor.execute(
                        """SELECT count(*), count(DISTINCT (window_start, flight)),
                        count(DISTINCT generation), min(generation)
                        FROM lake.uc.flights WHERE left_at >= '2013-06-01'
                        AND left_at < '2013-06-04'"""
                    ).fetchall()
                )

    reader = threading.Thread(target=look)
    reader.start()
    moments = random.Random(7)
    try:
        for writer in range(1, KILLS + 1):
            ours, theirs = processes.Pipe()
            process = processes.Process(
                target=fill_until_killed, args=(catalog_settings, writer, theirs)
            )
            process.start()
            # Every other one is killed in its first write, the others in their second.
            for _ in range(1 + writer % 2):
                ours.recv()
            time.sleep(moments.uniform(0, duration))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            assert process.exitcode == -signal.SIGKILL
    finally:
        stop.set()
        reader.join()
    assert {row[:3] for row in seen} == {(3000, 3000, 1)}
    # The reader looked while they wrote.
    assert len({row[3] // 1000 for row in seen}) > 1
    # Nobody waits for the dead: it is anybody's turn.
    lock = turns_file(catalog_settings)
    if lock is not None:
        with lock.open("a") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    fill(lake, KILLED, generation=1_000_000, rows_a_day=1000)
