"""A deployment that is gone comes back from a backup, and answers as before."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from ml_platform.access import Audit
from ml_platform.errors import BackupRefused, LakeError
from ml_platform.registry import history
from ml_platform.scoring import reproduce
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from ml_platform.upkeep.archive import Archive
from ml_platform.upkeep.backup import make_backup, opened_archive
from ml_platform.upkeep.moving import move_lake, moved
from ml_platform.upkeep.restore import opened_without_lake, restore
from ml_platform_dagster.assets.backups import build_backup
from ml_platform_dagster.resources import LakeResource
from ml_platform_dagster.sensors.nightly import build_nightly_schedules
from tests.object_stores import ObjectStore, s3_store
from tests.served import Deployment, rows_of
from tests.trips_use_case import days
from tests.upkept_trips import content, history_of, made, opened, record

pytestmark = pytest.mark.slow


def quiet(_: str) -> None:
    """Say nothing of what is being done."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    found = made(tmp_path_factory.mktemp("world"))
    yield found
    found.lake.close()


@pytest.fixture(scope="module")
def target(world: Deployment, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a backup of the world."""
    folder = str(tmp_path_factory.mktemp("archive"))
    make_backup(world.lake, folder, quiet)
    return folder


def elsewhere(world: Deployment, root: Path, **changes: object) -> Settings:
    fields = {**world.settings.model_dump(), "data": root / "data", **changes}
    return Settings.model_validate(fields)


def answers(found: Deployment) -> Any:
    with found.client() as client:
        answer = client.post("/predict/trips", json={"rows": rows_of(30)})
        assert answer.status_code == 200, answer.text
        found = [(p["probability"], p["not_found"]) for p in answer.json()["predictions"]]
        assert not any(lacking for _, lacking in found)
        return found


def archive_at(folder: str) -> Archive:
    return opened_archive(opened_without_lake(Settings()), folder)


def test_what_came_back_is_and_answers_what_was_lost(
    world: Deployment, target: str, tmp_path: Path
) -> None:
    before = history_of(world.lake)
    restored = elsewhere(world, tmp_path)
    done = restore(restored, target, None, quiet)
    assert done.backup.snapshot == max(before)
    with opened(world, restored) as found:
        assert history_of(found.lake) == before
        assert history(found.lake, found.use_case) == history(world.lake, world.use_case)
        assert Audit(found.lake).verify() == Audit(world.lake).verify()
        report = reproduce(found.lake, found.registry, found.use_case, days(25, 25))
        assert report.is_exact
        assert answers(found) == answers(world)
        version = found.registry._client.get_model_version("trips", "1")
        assert version.source.startswith((tmp_path / "data").as_uri())


def test_what_did_not_change_is_not_copied_again(world: Deployment, tmp_path: Path) -> None:
    folder = str(tmp_path)
    make_backup(world.lake, folder, quiet)
    before = set(archive_at(folder).present)
    record(world.lake, "something")
    second = make_backup(world.lake, folder, quiet)
    came = set(archive_at(folder).present) - before
    # The catalog, the row of the audit and the end of its chain; the index of no other file.
    assert 0 < len(came) <= 5
    assert len(archive_at(folder).names) == 2
    first = archive_at(folder).names[0]
    assert archive_at(folder).drop(1) == [first]
    assert archive_at(folder).damaged(second) == []
    assert archive_at(folder).names == [second.name]


def test_a_damaged_backup_is_refused_by_name(
    world: Deployment, target: str, tmp_path: Path
) -> None:
    copied = tmp_path / "archive"
    shutil.copytree(target, copied)
    archive = archive_at(str(copied))
    backup = archive.backup()
    entry = max(backup.of("lake"), key=lambda e: e.bytes)
    file = copied / "contents" / entry.sha256[:2] / entry.sha256
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert archive.damaged(backup) == [entry]
    restored = elsewhere(world, tmp_path)
    with pytest.raises(BackupRefused, match=f"lake/{entry.name}, is damaged"):
        restore(restored, str(copied), None, quiet)
    # The same command continues where it stopped, and until then no lake can be begun by mistake.
    with closing(Lake(restored)) as lake, pytest.raises(LakeError, match="no new lake is made"):
        content(lake)
    file.write_bytes((Path(target) / "contents" / entry.sha256[:2] / entry.sha256).read_bytes())
    done = restore(restored, str(copied), None, quiet)
    assert done.written < len(backup.entries)
    with opened(world, restored) as found:
        assert content(found.lake, backup.snapshot) == content(world.lake, backup.snapshot)
    with pytest.raises(LakeError, match="there is a lake already"):
        restore(restored, str(copied), None, quiet)


def test_nothing_that_is_there_is_overwritten(
    world: Deployment, target: str, tmp_path: Path
) -> None:
    restored = elsewhere(world, tmp_path)
    online = restored.online_folder / "trips.sqlite"
    online.parent.mkdir(parents=True)
    online.write_text("somebody else's")
    with pytest.raises(BackupRefused, match=r"trips\.sqlite exists and is not that of the backup"):
        restore(restored, target, None, quiet)
    assert online.read_text() == "somebody else's"


def test_a_backup_is_never_inside_of_what_it_copies(world: Deployment) -> None:
    with pytest.raises(BackupRefused, match="inside the data folder"):
        make_backup(world.lake, str(world.settings.root / "backups"), quiet)


def test_an_unknown_backup_is_refused(world: Deployment, target: str, tmp_path: Path) -> None:
    with pytest.raises(BackupRefused, match="holds no backup 'yesterday'; there are 20"):
        restore(elsewhere(world, tmp_path), target, "yesterday", quiet)
    with pytest.raises(BackupRefused, match="there is no backup in"):
        restore(elsewhere(world, tmp_path), str(tmp_path), None, quiet)


def test_a_backup_that_is_made_while_others_write_holds_whole_commits(tmp_path: Path) -> None:
    lake = Lake(Settings(data=tmp_path / "data"))
    with lake.cursor() as cursor:
        cursor.execute("CREATE SCHEMA lake.a; CREATE TABLE lake.a.t (x BIGINT, part BIGINT)")
    done = [0]
    stop = threading.Event()

    def write() -> None:
        with lake.cursor() as cursor:
            while not stop.is_set():
                number = done[0] + 1
                lake.transact(
                    cursor, Commit("writer", "0"),
                    lambda t, n=number: [
                        t.execute(f"INSERT INTO lake.a.t VALUES ({n}, {part})") for part in (0, 1)
                    ],
                )  # fmt: skip
                done[0] = number

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    try:
        while done[0] < 3:
            assert writer.is_alive()
        begun = done[0]
        make_backup(lake, str(tmp_path / "archive"), quiet)
        ended = done[0]
    finally:
        stop.set()
        writer.join(60)
    lake.close()
    restored = Settings(data=tmp_path / "restored")
    restore(restored, str(tmp_path / "archive"), None, quiet)
    with closing(Lake(restored)) as again, again.cursor() as cursor:
        rows, parts = cursor.execute("SELECT max(x), count(*) FROM lake.a.t").fetchone()
    assert begun <= rows <= ended + 1
    assert parts == 2 * rows


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with s3_store() as store:
        yield store


@pytest.mark.every_case
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_a_lake_moves_to_postgresql_and_s3_and_back(
    encrypted: bool, tmp_path: Path, store: ObjectStore, postgres: Any
) -> None:
    name = f"moved_{encrypted}".lower()
    postgres.psql(f"CREATE DATABASE {name};")
    world = made(tmp_path / "world", encrypted=encrypted)
    before = history_of(world.lake)
    world.lake.close()
    access = {"extensions": ("httpfs",), "secrets_sql": store_secret(store)}
    target = f"s3://lakes/backups/{name}"
    first = world.settings.model_copy(update=access)
    with opened(world, first) as found:
        make_backup(found.lake, target, quiet)
    served = elsewhere(
        world, tmp_path / "server", **access,
        catalog=f"postgres:{postgres.get_uri(name)}", lake_files=f"s3://lakes/{name}/",
    )  # fmt: skip
    restore(served, target, None, quiet)
    back = str(tmp_path / "archive")
    with opened(world, served) as found:
        assert history_of(found.lake) == before
        record(found.lake, "moved")
        moved = history_of(found.lake)
        make_backup(found.lake, back, quiet)
    with pytest.raises(LakeError, match="there is a lake already"):
        restore(served, target, None, quiet)
    again = elsewhere(world, tmp_path / "again")
    restore(again, back, None, quiet)
    with opened(world, again) as found:
        assert history_of(found.lake) == moved
        assert reproduce(found.lake, found.registry, found.use_case, days(25, 25)).is_exact
    lists = json.loads(next((tmp_path / "archive" / "backups").glob("*.json")).read_text())
    assert "hush" not in json.dumps(lists)
    assert "password" not in json.dumps(lists["places"])


@pytest.mark.every_case
@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "encrypted"])
def test_move_lake_keeps_history_and_continues_where_it_stopped(
    encrypted: bool, tmp_path: Path, store: ObjectStore, postgres: Any
) -> None:
    name = f"moving_{encrypted}".lower()
    postgres.psql(f"CREATE DATABASE {name};")
    world = made(tmp_path / "world", encrypted=encrypted)
    world.lake.close()
    access = {"extensions": ("httpfs",), "secrets_sql": store_secret(store)}
    first = world.settings.model_copy(update=access)
    catalog, files = f"postgres:{postgres.get_uri(name)}", f"s3://lakes/{name}"
    lost = max(Path(first.lake_files_uri).rglob("*.parquet"), key=lambda f: f.name)
    with opened(world, first) as found:
        before = history_of(found.lake)
        held = lost.rename(tmp_path / lost.name)
        with pytest.raises(BackupRefused, match=f"{lost.name} is lost: it holds"):
            move_lake(found.lake, catalog, files, quiet)
        held.rename(lost)
        assert move_lake(found.lake, catalog, files, quiet) == max(before)
        with pytest.raises(LakeError, match="there is a lake already"):
            move_lake(found.lake, catalog, files, quiet)
    with opened(world, moved(first, catalog, files)) as found:
        assert history_of(found.lake) == before
        record(found.lake, "moved")
        assert reproduce(found.lake, found.registry, found.use_case, days(25, 25)).is_exact


def test_a_lake_that_is_written_to_all_the_time_is_not_moved(tmp_path: Path) -> None:
    lake = Lake(Settings(data=tmp_path / "data"))
    with lake.cursor() as cursor:
        cursor.execute("CREATE SCHEMA lake.a; CREATE TABLE lake.a.t (x BIGINT)")

    def write(_: str) -> None:
        with lake.cursor() as cursor:
            lake.transact(
                cursor, Commit("w", "0"), lambda t: t.execute("INSERT INTO lake.a.t VALUES (1)")
            )

    catalog = f"sqlite:{tmp_path / 'other.sqlite'}"
    with pytest.raises(BackupRefused, match="somebody keeps writing"):
        move_lake(lake, catalog, str(tmp_path / "files"), write)
    move_lake(lake, catalog, str(tmp_path / "files"), quiet)
    with closing(Lake(moved(lake.settings, catalog, str(tmp_path / "files")))) as other:
        assert content(other) == content(lake)
    lake.close()


def store_secret(store: ObjectStore) -> Any:
    from pydantic import SecretStr

    return SecretStr(store.secret_sql)


def test_dagster_backs_up_each_night_where_a_place_is_set(
    world: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(world.settings.data))
    assert build_backup(world.settings) == []
    target = tmp_path / "archive"
    fields = {**world.settings.model_dump(), "backups": str(target), "backups_kept": 1}
    chosen = Settings.model_validate(fields)
    (job,), (schedule, _) = build_backup(chosen), build_nightly_schedules(chosen)
    assert schedule.job_name == job.name
    for _ in range(2):
        assert job.execute_in_process(resources={"lake": LakeResource()}).success
    archive = archive_at(str(target))
    assert len(archive.names) == 1
    restored = elsewhere(world, tmp_path)
    restore(restored, str(target), None, quiet)
    with opened(world, restored) as found:
        assert Audit(found.lake).verify()[-1].action.what == "backup"
