"""A source whose files are looked for in another folder, for one run."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_platform.errors import LandingError
from ml_platform.sources import arrivals, ingest
from ml_platform.sources.locations import located
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, days, settings, trips, write_folder

DECLARED = """\
pipelines:
  archive: {run: backfill, ingest: true, parameters: {locations: {trips: [archive, FOLDER]}}}
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[tuple[Lake, UseCase, Path]]:
    write_folder(tmp_path, "binary")
    spec = tmp_path / "trips" / "use_case.yaml"
    spec.write_text(spec.read_text() + DECLARED.replace("FOLDER", str(tmp_path / "drive")))
    lake = Lake(settings(tmp_path))
    landing = Path(lake.settings.landing_uri) / "trips"
    write(landing, 1, 2)
    yield lake, load_use_case(tmp_path / "trips"), landing
    lake.close()


def write(folder: Path, first: int, last: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for day in range(first, last + 1):
        trips(day, day, a_day=5).to_csv(folder / f"{day}.csv", index=False)


def ingested(lake: Lake, case: UseCase, first: int, last: int) -> dict[int, int]:
    """By day, rows that are ingested now."""
    report = ingest(lake, case, "trips", days(first, last), COMMIT)
    return {window.start.day: counts.ingested for window, counts in report.windows.items()}


def test_files_elsewhere_are_added_and_stay_when_they_are_looked_for_no_more(
    world: tuple[Lake, UseCase, Path],
) -> None:
    lake, case, landing = world
    write(landing / "archive" / "march", 3, 3)
    assert ingested(lake, case, 1, 3) == {1: 5, 2: 5, 3: 0}
    there = located(case, {"trips": "archive/march"}, lake.settings)
    assert ingested(lake, there, 1, 3) == {1: 5, 2: 5, 3: 5}
    # To whoever looks where files land as a rule, nothing is behind, and nothing is lost.
    found = arrivals(lake, case, "trips", COMMIT, datetime(2024, 4, 1, tzinfo=UTC))
    assert not found.windows
    assert ingested(lake, case, 1, 3) == {1: 5, 2: 5, 3: 5}


def test_a_folder_of_another_drive_is_read_where_it_is_declared(
    world: tuple[Lake, UseCase, Path], tmp_path: Path
) -> None:
    lake, case, _ = world
    write(tmp_path / "drive" / "april", 4, 4)
    there = located(case, {"trips": str(tmp_path / "drive" / "april")}, lake.settings)
    assert ingested(lake, there, 4, 4) == {4: 5}


def test_a_run_reads_nothing_that_no_pipeline_permits(
    world: tuple[Lake, UseCase, Path], tmp_path: Path
) -> None:
    lake, case, _ = world
    for folder in ("/etc", "archive/../..", str(tmp_path), "s3://elsewhere/x"):
        with pytest.raises(LandingError, match=r"trips/trips: '"):
            located(case, {"trips": folder}, lake.settings)
    with pytest.raises(LandingError, match="has no source 'tripz'"):
        located(case, {"tripz": "archive"}, lake.settings)


def test_a_link_to_somewhere_else_is_not_followed(
    world: tuple[Lake, UseCase, Path], tmp_path: Path
) -> None:
    lake, case, landing = world
    write(tmp_path / "secret", 5, 5)
    (landing / "archive").mkdir()
    (landing / "archive" / "way").symlink_to(tmp_path / "secret")
    with pytest.raises(LandingError, match="a link leads from archive/way"):
        located(case, {"trips": "archive/way"}, lake.settings)


def test_a_declared_folder_may_itself_be_a_link(
    world: tuple[Lake, UseCase, Path], tmp_path: Path
) -> None:
    lake, case, _ = world
    write(tmp_path / "disk" / "may", 6, 6)
    (tmp_path / "drive").symlink_to(tmp_path / "disk")
    there = located(case, {"trips": str(tmp_path / "drive" / "may")}, lake.settings)
    assert ingested(lake, there, 6, 6) == {6: 5}
