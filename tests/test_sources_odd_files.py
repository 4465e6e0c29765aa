"""Odd entries in landing: each is refused alone, by name, and the others are ingested."""

import gzip
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.sources import arrivals
from ml_platform.sources.reading import Reading
from ml_platform.storage import Commit, Lake
from tests.dagster_servers import ROOT
from tests.test_sources_ingest import HEADER, Rides

pytestmark = [pytest.mark.slow, pytest.mark.every_case]

COMMIT = Commit("run-1", "abc")
GOOD = HEADER + "good,2024-03-01 09:00,1.5,2\n"
LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture
def rides(tmp_path: Path, lake: Lake) -> Iterator[Rides]:
    made = Rides(tmp_path / "rides", lake)
    made.declare(files="**")
    (made.landing / "good.csv").write_text(GOOD)
    yield made
    for entry in made.landing.rglob("*"):
        if entry.is_dir():
            entry.chmod(0o755)


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe.csv")
    return "is a pipe, not a file"


def a_device(folder: Path) -> str:
    (folder / "zero.csv").symlink_to("/dev/zero")
    return "is a device, not a file"


def a_loop(folder: Path) -> str:
    (folder / "loop.csv").symlink_to("loop.csv")
    return "cannot be read: Too many levels of symbolic links"


def a_name(folder: Path) -> str:
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.csv")).write_text(GOOD)
    return "has a name that is not UTF-8; rename it"


def a_folder_s_name(folder: Path) -> str:
    below = Path(os.fsdecode(os.fsencode(folder) + b"/\xff"))
    below.mkdir()
    (below / "a.csv").write_text(GOOD)
    return "has a name that is not UTF-8; rename it"


def a_long_line(folder: Path) -> str:
    with (folder / "long.csv").open("wb") as file:
        file.write(HEADER.encode())
        for _ in range(40):
            file.write(b"x" * 2**20)
    return "line 2 is longer than 16 MiB; does it lack its line ends?"


def a_bomb(folder: Path) -> str:
    with gzip.open(folder / "bomb.csv.gz", "wb", compresslevel=9) as file:
        file.write(HEADER.encode())
        for _ in range(100):
            file.write(b"bad,2024-03-01 09:00,1.5,2\n" * 2**15)
    return "unzips to more than "


ODD = (a_pipe, a_device, a_loop, a_name, a_folder_s_name, a_long_line, a_bomb)


@pytest.mark.parametrize("make", ODD)
def test_it_alone_is_refused(rides: Rides, make: Callable[[Path], str]) -> None:
    problem = make(rides.landing)
    report = rides.ingest()
    (refused,) = report.refused
    assert problem in refused.problem
    assert refused.file.encode()
    assert sum(counts.ingested for counts in report.windows.values()) == 1
    # The sensor asks for nothing that it does not get, and a second ingestion says the same.
    found = arrivals(rides.lake, rides.use_case, "rides", COMMIT, LATER)
    assert found.windows == {}
    again = rides.ingest()
    assert [each.problem for each in again.refused] == [refused.problem]


def test_all_of_them_at_once(rides: Rides) -> None:
    for make in ODD:
        make(rides.landing)
    report = rides.ingest()
    assert len(report.refused) == len(ODD)
    assert sum(counts.ingested for counts in report.windows.values()) == 1


UNPRIVILEGED = """
import os, sys
from ml_platform.sources.listing import _scan
os.setgroups([]); os.setgid(65534); os.setuid(65534)
print([problem for *_, problem in sorted(_scan(sys.argv[1], ("**",)))])
"""


def test_a_file_and_a_folder_without_permission(tmp_path: Path) -> None:
    # Those of pytest are for their owner alone.
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and "pytest" in str(folder):
            folder.chmod(0o755)
    (tmp_path / "a.csv").write_text(GOOD)
    (tmp_path / "closed.csv").write_text(GOOD)
    (tmp_path / "closed.csv").chmod(0)
    (tmp_path / "folder").mkdir(mode=0)
    if os.getuid():
        from ml_platform.sources.listing import _scan

        found = str([problem for *_, problem in sorted(_scan(str(tmp_path), ("**",)))])
    else:
        # Root may read everything, so somebody else looks.
        run = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED, str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found = run.stdout.strip()
    denied = "cannot be read: Permission denied"
    assert found == str([None, denied, denied])


def test_a_file_that_was_not_permitted_is_taken_once_it_is(
    rides: Rides, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = rides.landing / "late.csv"
    file.write_text(HEADER + "late,2024-03-01 10:00,1.5,2\n")
    access = os.access
    with monkeypatch.context() as patched:
        patched.setattr(
            "ml_platform.sources.listing.os.access",
            lambda path, mode, **how: path != str(file) and access(path, mode, **how),
        )
        report = rides.ingest()
        assert [each.file for each in report.refused] == ["late.csv"]
    # Only its permissions change: neither its content nor its time.
    file.chmod(0o640)
    report = rides.ingest()
    assert report.refused == ()
    assert sum(counts.ingested for counts in report.windows.values()) == 2


def grow(file: Path) -> None:
    with file.open("a") as stream:
        stream.write("more,2024-03-01 11:00,1.5,2\n")


def shrink(file: Path) -> None:
    os.truncate(file, len(HEADER))


def vanish(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("happens", [grow, shrink, vanish])
@pytest.mark.parametrize("moment", ["scan", "load_lines"])
def test_a_file_that_changes_while_it_is_read(
    rides: Rides, monkeypatch: pytest.MonkeyPatch, happens: Callable[[Path], None], moment: str
) -> None:
    file = rides.landing / "moving.csv"
    content = HEADER + "moving,2024-03-01 10:00,1.5,2\n"
    file.write_text(content)
    assert rides.ingest().refused == ()
    file.write_text(content.replace("1.5", "2.5"))
    read = getattr(Reading, moment)

    def reading(*arguments: object, **named: object) -> object:
        if file.exists() and file.read_text() == content.replace("1.5", "2.5"):
            happens(file)
        return read(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Reading, moment, reading)
        report = rides.ingest()
    assert [each.file for each in report.refused] == ["moving.csv"]
    assert "while it was read" in report.refused[0].problem
    # What was ingested of it stays, and it is asked for again as it is now.
    assert distances(rides, "moving") == [1.5]
    if happens is grow:
        found = arrivals(rides.lake, rides.use_case, "rides", COMMIT, LATER)
        assert len(found.windows) == 1
        rides.ingest()
        assert distances(rides, "moving") == [2.5]
        assert distances(rides, "more") == [1.5]


def distances(rides: Rides, ride: str) -> list[float]:
    with rides.lake.cursor() as cursor:
        rows = cursor.execute(
            "SELECT distance FROM lake.rides.rides WHERE ride = ?", [ride]
        ).fetchall()
    return [distance for (distance,) in rows]


BOUNDED = """
import resource, sys
from pathlib import Path
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
case = load_use_case(Path(sys.argv[1]))
lake = Lake(Settings(data=Path(sys.argv[2])))
start = case.calendar.start
whole = Window(start, case.calendar.window("2024-03-03").end)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = ingest(lake, case, "rides", whole, Commit("r", "c"))
print([each.problem for each in report.refused])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.exhaustive
def test_a_line_of_a_gigabyte_and_a_bomb_take_little_memory(rides: Rides, tmp_path: Path) -> None:
    with (rides.landing / "long.csv").open("wb") as file:
        file.write(HEADER.encode())
        for _ in range(1024):
            file.write(b"x" * 2**20)
    with gzip.open(rides.landing / "bomb.csv.gz", "wb", compresslevel=1) as file:
        file.write(HEADER.encode())
        for _ in range(3 * 1024):
            file.write(b"0" * 2**20)
    rides.lake.close()
    command = [sys.executable, "-c", BOUNDED, str(rides.folder), str(rides.lake.settings.data)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    refused, megabytes = run.stdout.strip().splitlines()
    assert refused.count("MiB") == 2
    assert int(megabytes) < 300


def test_a_broken_file_is_read_line_by_line_in_little_memory(rides: Rides) -> None:
    lines = [f"r{n},2024-03-01 09:00:{n % 60:02d},1.5,2" for n in range(50_000)]
    lines[40_000] = "many,2024-03-01 09:00,1.5,2,3,4"
    lines[45_000] = '"open,2024-03-01 09:00,1.5,2'
    (rides.landing / "broken.csv").write_text(HEADER + "\n".join(lines) + "\n")
    report = rides.ingest()
    counts = next(iter(report.windows.values()))
    assert (counts.landed, counts.ingested, counts.quarantined) == (50_001, 49_999, 2)
    with rides.lake.cursor() as cursor:
        rows = cursor.execute(
            "SELECT _row, reason FROM lake.rides.quarantine ORDER BY _row"
        ).fetchall()
    assert [row for row, _ in rows] == [40_002, 45_002]
