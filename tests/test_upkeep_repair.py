"""What lost data files held comes back: from a backup, or computed again."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.backfill import Standing, judge
from ml_platform.cli.app import app
from ml_platform.errors import ArtifactLost, DataFileLost
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform.storage.lost_files import find_lost
from ml_platform.upkeep.backup import make_backup
from ml_platform.upkeep.repair import forget, plan_repair
from tests.served import Deployment
from tests.trips_use_case import days
from tests.upkept_trips import content, made, opened

pytestmark = pytest.mark.slow
STAMPS = {"_snapshot", "snapshot", "scored_at", "labels_known_by"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    found = made(tmp_path_factory.mktemp("world"))
    make_backup(found.lake, str(found.root / "archive"), print)
    found.lake.close()
    return found


@pytest.fixture
def copy(world: Deployment, tmp_path: Path) -> Iterator[Deployment]:
    """The world, in a folder of the test's own."""
    shutil.copytree(world.settings.root, tmp_path / "data")
    fields = {**world.settings.model_dump(), "data": tmp_path / "data"}
    with opened(world, Settings.model_validate(fields)) as found:
        yield found


def ml_platform(found: Deployment, *command: str) -> tuple[int, str]:
    """Exit code and output of a command over a deployment."""
    environment = {
        "ML_PLATFORM_DATA": str(found.settings.data),
        "ML_PLATFORM_USE_CASES": str(found.settings.use_cases),
    }
    found.lake.close()
    result = CliRunner().invoke(app, command, env=environment)
    said = result.output if result.exception is None else f"{result.output}{result.exception}"
    return result.exit_code, said


def files_of(found: Deployment, table: str) -> list[Path]:
    return sorted(Path(found.settings.lake_files_uri).glob(f"trips/{table}/**/*.parquet"))


def lose(found: Deployment, *tables: str) -> None:
    found.lake.close()
    for table in tables:
        files = files_of(found, table)
        assert files, table
        for file in files:
            file.unlink()


def rows(found: Deployment, table: str) -> list[object]:
    """What a table holds, without the stamps of when it was made."""
    with found.lake.cursor() as cursor:
        known = cursor.execute(f"DESCRIBE lake.trips.{table}").fetchall()
        columns = ", ".join(name for name, *_ in known if name not in STAMPS)
        return cursor.execute(f"SELECT {columns} FROM lake.trips.{table} ORDER BY ALL").fetchall()


COMPUTED = ("trips", "pace_features", "labels", "predictions", "drift_report", "performance_report")


@pytest.mark.every_case
@pytest.mark.parametrize("lost", [*[(table,) for table in COMPUTED], COMPUTED])
def test_what_can_be_computed_is_as_before(copy: Deployment, lost: tuple[str, ...]) -> None:
    before = {table: rows(copy, table) for table in COMPUTED}
    lose(copy, *lost)
    code, said = ml_platform(copy, "verify")
    assert code == 1
    assert all(f"rows of trips.{table} of windows 2024-03-" in said for table in lost), said
    code, said = ml_platform(copy, "repair")
    assert code == 0, said
    assert {table: rows(copy, table) for table in COMPUTED} == before
    code, said = ml_platform(copy, "audit")
    assert "repair" in said


def test_a_dry_run_writes_nothing(copy: Deployment) -> None:
    lose(copy, "labels")
    with copy.lake.cursor() as cursor:
        before = copy.lake.snapshot(cursor)
    code, said = ml_platform(copy, "repair", "--dry-run")
    assert (code, "trips/labels: 30 windows, computed again" in said) == (0, True), said
    with copy.lake.cursor() as cursor:
        assert copy.lake.snapshot(cursor) == before


def test_a_backup_brings_back_the_very_files(copy: Deployment, world: Deployment) -> None:
    before = content(copy.lake)
    lose(copy, "trips", "predictions", "promotions")
    model = next((copy.settings.root / "mlflow" / "artifacts").rglob("model.pkl"))
    model.write_bytes(b"other")
    code, said = ml_platform(copy, "repair", "--backup", str(world.root / "archive"))
    assert code == 0, said
    assert "1 artifacts of models" in said
    with closing(Lake(copy.settings)) as lake:
        after = content(lake)
    assert {t: found for t, found in after.items() if t != "platform.audit"} == {
        t: found for t, found in before.items() if t != "platform.audit"
    }
    assert model.read_bytes() != b"other"


def test_decisions_come_back_from_a_backup_alone(copy: Deployment, world: Deployment) -> None:
    lose(copy, "promotions")
    code, said = ml_platform(copy, "repair")
    assert code == 1
    assert "1 row of trips.promotions" in said
    assert "only a backup has it, or --accept-loss" in said
    code, said = ml_platform(copy, "status")
    assert "promotions" in said
    code, said = ml_platform(copy, "repair", "--accept-loss")
    assert code == 0, said
    code, said = ml_platform(copy, "history", "trips")
    assert code == 0, said


def test_rows_whose_landing_file_is_gone_too_are_said_to_be_lost(copy: Deployment) -> None:
    count = len(rows(copy, "trips"))
    lose(copy, "trips")
    for file in Path(copy.settings.landing_uri).rglob("*.csv"):
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:401]))
    code, said = ml_platform(copy, "repair")
    assert code == 1
    assert f"{count - 400:,} rows of trips.trips did not come back" in said
    assert len(rows(copy, "trips")) == 400


def test_a_changed_byte_is_found_beside_the_backup(copy: Deployment, world: Deployment) -> None:
    file = max(files_of(copy, "pace_features"), key=lambda f: f.stat().st_size)
    before = rows(copy, "pace_features")
    data = bytearray(file.read_bytes())
    for place in range(300, 340):
        data[place] ^= 1
    file.write_bytes(data)
    archive = str(world.root / "archive")
    assert ml_platform(copy, "verify")[0] == 0
    code, said = ml_platform(copy, "verify", "--reading", "--backup", archive)
    assert code == 1
    assert str(file) in said
    code, said = ml_platform(copy, "repair", "--reading", "--backup", archive)
    assert code == 0, said
    assert rows(copy, "pace_features") == before


def test_whoever_is_killed_in_between_leaves_windows_that_are_due(copy: Deployment) -> None:
    lose(copy, "pace_features")
    with copy.lake.cursor() as cursor:
        lost = find_lost(cursor, copy.settings.lake_files_uri)
    cases = {"trips": copy.use_case}
    plan = plan_repair(cases, lost)
    forget(copy.lake, cases, plan, plan.forgotten, "killed")
    states = judge(copy.lake, copy.use_case, days(1, 30), ["pace_features"])["pace_features"]
    assert {state.standing for state in states.values()} == {Standing.stale}
    assert {state.why for state in states.values()} == {"its data file was lost"}


def test_a_missing_artifact_is_named_with_what_to_do(copy: Deployment, world: Deployment) -> None:
    shutil.rmtree(copy.settings.root)
    fields = {**world.settings.model_dump(), "data": copy.settings.root}
    again = Settings.model_validate(fields)
    assert ml_platform(copy, "restore", str(world.root / "archive"))[0] == 0
    model = next((again.root / "mlflow" / "artifacts").rglob("model.pkl"))
    model.unlink()
    with pytest.raises(ArtifactLost, match=r"trips version 1: model\.pkl is missing from file:"):
        Registry(again).load(copy.use_case, 1)
    code, said = ml_platform(copy, "verify")
    assert code == 1
    assert "model.pkl is missing" in said
    code, said = ml_platform(copy, "repair", "--backup", str(world.root / "archive"))
    assert code == 0, said
    assert Registry(again).load(copy.use_case, 1).version == 1


def test_old_snapshots_are_said_to_stay_unreadable(copy: Deployment) -> None:
    lose(copy, "labels")
    assert ml_platform(copy, "repair")[0] == 0
    code, said = ml_platform(copy, "verify")
    assert code == 1
    assert "which snapshots before" in said
    with copy.lake.cursor() as cursor:
        lost = find_lost(cursor, copy.settings.lake_files_uri)
    read = f"SELECT max(known_at) FROM lake.trips.labels AT (VERSION => {lost[0].file.written_at})"
    with pytest.raises(DataFileLost), copy.lake.cursor() as cursor:
        cursor.execute(read)
