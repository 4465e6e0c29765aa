"""Lakes that earlier releases made are upgraded, read as they were, and continued."""

import shutil
import tarfile
import tomllib
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ml_platform.errors import UpgradeNeeded
from ml_platform.monitoring.series import performance_windows
from ml_platform.registry import Registry, history
from ml_platform.registry.tracking import SQLITE
from ml_platform.scoring import reproduce
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.ranges import named_partition, named_range
from ml_platform.storage import Lake
from ml_platform.storage.schema_versions import Stamp, read_lake_stamp
from ml_platform.upkeep.restore import move_artifacts
from tests.command_line import Run, command_line
from tests.release_lake import DAYS, SCORED, rows_of
from tests.upkept_trips import content

LAKES = Path(__file__).parent / "fixtures" / "lakes"
RELEASES = sorted(folder.name for folder in LAKES.iterdir() if folder.is_dir())


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ML_PLATFORM_LANDING_SETTLE_SECONDS", "0")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    return command_line(monkeypatch, capsys)


def unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as packed:
        # Python 3.11.4 and later have filters, 3.14 asks for one.
        packed.extraction_filter = getattr(tarfile, "data_filter", None)
        packed.extractall(folder)


def brought(release: str, folder: Path) -> Settings:
    """The deployment of a release, below another folder."""
    unpack(LAKES / release / "trips.tar.xz", folder)
    settings = Settings(data=folder / "data", use_cases=folder / "use_cases")
    artifacts = settings.artifacts_uri
    assert artifacts is not None
    move_artifacts(
        Path(settings.tracking_uri.removeprefix(SQLITE)), artifacts.removeprefix("file://")
    )
    return settings


def rows(settings: Settings) -> dict[str, Any]:
    """What tables of the use case hold, but for columns that came later."""
    with closing(Lake(settings, is_upgrading=True)) as lake:
        held = content(lake)
        with lake.cursor() as cursor:
            held["trips.predictions"] = cursor.execute(
                "SELECT trip, event_time, probability, model_version, snapshot "
                "FROM lake.trips.predictions ORDER BY ALL"
            ).fetchall()
    return held


def test_this_release_has_a_lake_that_later_ones_are_tried_on() -> None:
    project = tomllib.loads((LAKES.parents[2] / "pyproject.toml").read_text())["project"]
    is_under_way = ".dev" in project["version"]
    assert is_under_way or project["version"] in RELEASES, "make fixture-lake"


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("release", RELEASES)
def test_a_lake_of_an_earlier_release_is_upgraded_and_continued(
    release: str, run: Run, tmp_path: Path
) -> None:
    settings = brought(release, tmp_path)
    before = rows(settings)
    code, said = run("upgrade", "--backup", str(tmp_path / "kept"))
    assert code == 0, said
    assert rows(settings)["trips.predictions"] == before["trips.predictions"]
    same = before.keys() - {"trips.performance_report", "trips.promotions", "platform.audit"}
    after = rows(settings)
    for table in same:
        assert after[table][0] == before[table][0], table
    code, said = run("check", "trips")
    assert (code, said.startswith("trips: ok")) == (0, True), said
    code, said = run("status", "trips")
    assert "champion       version 1" in said, said
    use_case = load_use_case(settings.use_cases / "trips")
    scored = named_range(use_case, SCORED, "")
    with closing(Lake(settings)) as lake:
        registry = Registry(settings)
        assert reproduce(lake, registry, use_case, scored).is_exact
        assert [decision.version for decision in history(lake, use_case)] == [1]
        with lake.cursor() as cursor:
            assert read_lake_stamp(cursor) == Stamp.of("lake")
        assert len(performance_windows(lake, use_case)) == 10
    landed = settings.root / "landing" / "trips" / f"day{DAYS}.csv"
    landed.write_text(rows_of(DAYS, Random(1)))
    code, said = run(
        "backfill",
        "trips",
        "--with-sources",
        "--here",
        "--from",
        "2024-03-23",
        "--to",
        "2024-03-25",
    )
    assert (code, "partitions were computed" in said) == (0, True), said
    with closing(Lake(settings)) as lake:
        assert reproduce(
            lake, Registry(settings), use_case, named_partition(use_case, "2024-03-25")
        ).is_exact


def test_a_catalog_of_an_older_ducklake_is_migrated_by_ducklake(run: Run, tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    (tmp_path / "use_cases").mkdir()
    unpack(LAKES / "ducklake-0.3.tar.xz", settings.root)
    with pytest.raises(UpgradeNeeded), closing(Lake(settings)) as lake, lake.cursor():
        pass
    catalog = settings.root / "lake" / "catalog.sqlite"
    before = catalog.read_bytes()
    code, said = run("upgrade", "--dry-run")
    assert (code, "DuckLake migrates it" in said) == (0, True), said
    assert catalog.read_bytes() == before
    code, said = run("upgrade", "--backup", str(tmp_path / "kept"))
    assert code == 0, said
    with closing(Lake(settings)) as lake, lake.cursor() as cursor:
        assert cursor.execute("SELECT count(*), min(id) FROM lake.trips.notes").fetchone() == (
            990, 10,
        )  # fmt: skip
    # What was kept is as it was before.
    shutil.rmtree(settings.root)
    _, said = run("restore", str(tmp_path / "kept"))
    assert "DuckLake's version 0.3" in said


@pytest.mark.slow
def test_dagster_migrates_its_own_where_that_is_asked_for(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "use_cases").mkdir()
    home = tmp_path / "dagster"
    home.mkdir()
    with closing(Lake(Settings(data=tmp_path / "data"))) as lake, lake.cursor():
        pass
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    _, said = run("upgrade")
    assert f"by hand: Dagster, with DAGSTER_HOME={home}: dagster instance migrate" in said
    assert not list(home.rglob("*.db"))
    code, said = run("upgrade", "--dagster", "--without-backup")
    assert (code, "runs at the end: dagster instance migrate" in said) == (0, True), said
    assert list(home.rglob("*.db"))
