"""What an older release stored is migrated by one command or refused; a newer one is refused."""

import fcntl
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis

from ml_platform.access import Audit
from ml_platform.errors import NewerRelease, UpgradeNeeded
from ml_platform.features.online_redis import STAMP, RedisStore
from ml_platform.features.online_sqlite import SCHEMA_VERSION, SqliteStore
from ml_platform.features.online_store import Fresh, OnlineStore
from ml_platform.registry import history
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake, Table, append, stored_calendars
from ml_platform.storage.migrations import MIGRATIONS
from ml_platform.storage.schema_versions import (
    FILE,
    KNOWN,
    Stamp,
    read_folder_stamp,
    read_lake_stamp,
)
from ml_platform.upkeep.archive import Backup
from tests import trips_use_case as trips
from tests.command_line import Run, command_line

COMMIT = Commit("test", "0")
NOTES = Table("trips", "notes", {"id": "BIGINT"}, ("id",))
NEWER = json.dumps({"schema_version": 99, "release": "9.1.0"})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return trips.settings(tmp_path)


@pytest.fixture
def run(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(settings.root))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)

    return command_line(monkeypatch, capsys)


def write(settings: Settings, number: int = 1) -> None:
    with closing(Lake(settings)) as lake, lake.cursor() as cursor:
        append(lake, cursor, NOTES, f"SELECT {number} AS id", COMMIT)


def execute(settings: Settings, *statements: str) -> None:
    """Change the lake behind the platform's back."""
    with closing(Lake(settings, is_upgrading=True)) as lake, lake.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def stamp(settings: Settings) -> Stamp | None:
    with closing(Lake(settings, is_upgrading=True)) as lake, lake.cursor() as cursor:
        return read_lake_stamp(cursor)


def declared(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path / "use_cases", "binary")


OLD = (
    "DROP TABLE IF EXISTS lake.platform.schema_version",
    "CREATE SCHEMA IF NOT EXISTS lake.trips",
    "CREATE TABLE lake.trips.trips (window_start TIMESTAMP, trip BIGINT, started_at TIMESTAMPTZ, "
    "city VARCHAR, distance DOUBLE, delay DOUBLE, known_at TIMESTAMPTZ, _file VARCHAR, "
    "_row BIGINT)",
    "ALTER TABLE lake.trips.trips SET PARTITIONED BY (window_start)",
    "INSERT INTO lake.trips.trips BY NAME SELECT TIMESTAMP '2024-03-01 05:00:00' AS window_start, "
    "1 AS trip, TIMESTAMPTZ '2024-03-01 12:00:00+00' AS started_at",
    "CREATE TABLE lake.trips.promotions (version INTEGER, effective_from TIMESTAMPTZ, "
    "decided_at TIMESTAMPTZ, decided_by VARCHAR, decision VARCHAR, reason VARCHAR, "
    "figures MAP(VARCHAR, DOUBLE))",
    "INSERT INTO lake.trips.promotions VALUES (1, '2024-03-01', '2024-03-02', 'ada', 'promoted', "
    "'first', MAP {'roc_auc': 0.7})",
)
"""A lake as it was before tables noted calendars, before `_snapshot`, before later columns."""


@pytest.fixture
def old(settings: Settings, tmp_path: Path) -> UseCase:
    use_case = declared(tmp_path)
    execute(settings, *OLD)
    (settings.root / FILE).unlink(missing_ok=True)
    file = settings.root / "control" / "callbacks.sqlite"
    file.parent.mkdir()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE ml_platform_callbacks (id TEXT PRIMARY KEY, told_at FLOAT8)")
    return use_case


def test_every_version_has_a_migration_that_leads_to_it() -> None:
    for kind, known in KNOWN.items():
        leads = [each.version for each in MIGRATIONS if each.of == kind]
        assert leads == list(range(2, known + 1)), kind


def test_a_new_lake_is_stamped_by_its_first_transaction_and_by_no_other(settings: Settings) -> None:
    write(settings)
    assert stamp(settings) == Stamp.of("lake")
    assert read_folder_stamp(settings.root) == Stamp.of("data folder")
    write(settings, 2)
    with closing(Lake(settings)) as lake, lake.cursor() as cursor:
        changed = cursor.execute(
            "SELECT snapshot_id FROM lake.snapshots() "
            "WHERE list_contains(changes['tables_created'], 'platform.schema_version')"
        ).fetchall()
    assert changed == [(1,)]


def test_a_lake_that_only_lacks_its_stamp_gets_it_with_the_next_transaction(
    settings: Settings,
) -> None:
    write(settings)
    execute(settings, "DROP TABLE lake.platform.schema_version")
    assert stamp(settings) is None
    with closing(Lake(settings, read_only=True)) as lake, lake.cursor() as cursor:
        assert cursor.execute(f"SELECT count(*) FROM {NOTES.sql}").fetchone() == (1,)
    assert stamp(settings) is None
    write(settings, 2)
    assert stamp(settings) == Stamp.of("lake")


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("is_upgrading", [False, True])
def test_a_lake_of_a_newer_release_is_opened_by_nobody(
    settings: Settings, read_only: bool, is_upgrading: bool
) -> None:
    write(settings)
    execute(settings, f"COMMENT ON TABLE lake.platform.schema_version IS '{NEWER}'")
    lake = Lake(settings, read_only=read_only, is_upgrading=is_upgrading)
    said = r"version 99, written by release 9\.1\.0.*install"
    with pytest.raises(NewerRelease, match=said), lake.cursor():
        pass


def test_a_data_folder_of_a_newer_release_is_refused(settings: Settings, run: Run) -> None:
    write(settings)
    (settings.root / FILE).write_text(NEWER)
    code, said = run("upgrade", "--without-backup")
    assert code == 1
    assert "data folder" in said
    assert "install release 9.1.0 or a newer one" in said


def test_an_old_lake_is_refused_until_it_is_upgraded(
    old: UseCase, settings: Settings, run: Run, tmp_path: Path
) -> None:
    with pytest.raises(UpgradeNeeded, match=r"has schema version 1.*run ml-platform upgrade"):
        write(settings)
    with closing(sqlite3.connect(settings.root / "lake" / "catalog.sqlite")) as catalog:
        before = catalog.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchone()
        code, said = run("upgrade", "--dry-run")
        assert code == 0
        for step in (
            "trips.promotions: add the column left_out",
            "trips.trips: add the column _snapshot, share files by month",
            "trips.trips: note the calendar of its windows",
            "callbacks.sqlite: rename the column told_at to notified_at",
        ):
            assert step in said
        after = catalog.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchone()
    assert before == after
    code, said = run("upgrade")
    assert (code, "a backup comes first" in said) == (1, True)
    code, said = run("upgrade", "--backup", str(tmp_path / "kept"))
    assert code == 0, said
    assert "\nupgraded\n" in said
    assert stamp(settings) == Stamp.of("lake")
    assert read_folder_stamp(settings.root) == Stamp.of("data folder")
    with closing(Lake(settings)) as lake:
        with lake.cursor() as cursor:
            noted = stored_calendars(cursor, "trips")["trips"]
        (decision,) = history(lake, old)
        assert (decision.left_out, decision.too_good, decision.figures) == (
            (), "", {"roc_auc": 0.7},
        )  # fmt: skip
        assert noted is not None
        assert noted.is_of(old.calendar)
        assert "upgrade" in [row.action.what for row in Audit(lake).rows()]
    assert run("upgrade", "--without-backup")[1].count("which this release uses") == 2


def test_what_was_interrupted_is_continued(
    old: UseCase, settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ml_platform.storage.migrations import lake_2

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(lake_2, "_note_calendar", killed)
        assert run("upgrade", "--without-backup")[0] != 0
    assert stamp(settings) is None
    with pytest.raises(UpgradeNeeded):
        write(settings)
    code, said = run("upgrade", "--without-backup")
    assert (code, "left_out" in said) == (0, False), said
    assert stamp(settings) == Stamp.of("lake")


def test_two_upgrades_exclude_each_other(old: UseCase, settings: Settings, run: Run) -> None:
    with (settings.root / "upgrade.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, said = run("upgrade", "--without-backup")
    assert (code, "another upgrade of this deployment is under way" in said) == (1, True)


def test_windows_that_are_none_of_the_declared_calendar_are_not_noted(
    old: UseCase, settings: Settings, run: Run
) -> None:
    spec = old.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("cadence: daily", "cadence: monthly"))
    execute(
        settings,
        "UPDATE lake.trips.trips SET window_start = TIMESTAMP '2024-03-02 05:00:00'",
    )
    code, said = run("upgrade", "--without-backup")
    assert (code, "change `partitions` back" in said) == (1, True)


def test_tables_of_a_use_case_that_is_gone_are_not_taken_for_any_calendar(
    old: UseCase, run: Run, tmp_path: Path
) -> None:
    aside = old.folder.rename(tmp_path / "aside")
    assert run("upgrade", "--without-backup")[0] == 0
    aside.rename(old.folder)
    code, said = run("labels", "trips")
    assert code == 1
    assert "was written by the calendar not noted" in said


def test_a_use_case_that_cannot_be_loaded_holds_an_upgrade_up(
    old: UseCase, settings: Settings, run: Run
) -> None:
    spec = old.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("cadence", "cadense"))
    code, said = run("upgrade", "--without-backup")
    assert (code, "trips cannot be loaded" in said) == (1, True)
    assert stamp(settings) is None


@pytest.mark.parametrize(
    ("version", "error", "advice"),
    [("0.3", UpgradeNeeded, "run ml-platform upgrade"), ("9.0", NewerRelease, "install that one")],
)
def test_a_catalog_of_another_ducklake_is_named(
    settings: Settings, version: str, error: type[Exception], advice: str
) -> None:
    write(settings)
    with closing(sqlite3.connect(settings.root / "lake" / "catalog.sqlite")) as catalog, catalog:
        catalog.execute("UPDATE ducklake_metadata SET value = ? WHERE key = 'version'", [version])
    with pytest.raises(error, match=f"DuckLake's version {version}.*{advice}"):
        write(settings)


def test_a_backup_of_a_newer_release_is_refused() -> None:
    made = Backup("20300101T000000.000000Z", 1, "9.1.0", {}, (), (), schema_version=99)
    with pytest.raises(NewerRelease, match=r"backup .* version 99, written by release 9\.1\.0"):
        Backup.read(made.document)
    without = json.loads(made.document)
    del without["schema_version"]
    assert Backup.read(json.dumps(without)).schema_version == 1


def fill(store: OnlineStore) -> None:
    store.replace("trips", "pace", 0, 10, lambda _: Fresh(0, (), (0,)))


def test_an_online_file_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    with closing(SqliteStore(tmp_path)) as store:
        fill(store)
    with closing(sqlite3.connect(tmp_path / "trips.sqlite")) as file, file:
        assert (
            json.loads(file.execute(f'SELECT stamp FROM "{SCHEMA_VERSION}"').fetchone()[0])[
                "schema_version"
            ]
            == KNOWN["online store"]
        )
        file.execute(f'UPDATE "{SCHEMA_VERSION}" SET stamp = ?', [NEWER])
    with closing(SqliteStore(tmp_path)) as store:
        for _ in range(2):
            with pytest.raises(NewerRelease, match=r"online store .*version 99"):
                store.count("trips", "pace")
            with pytest.raises(NewerRelease, match=r"online store .*version 99"):
                fill(store)


def test_a_redis_of_a_newer_release_is_refused(redis_url: str) -> None:
    with (
        closing(RedisStore(redis_url, Settings())) as store,
        closing(RedisStore(redis_url, Settings())) as other,
        closing(redis.Redis.from_url(redis_url)) as client,
    ):
        fill(store)
        said = client.get(STAMP)
        assert said is not None
        assert Stamp.read(said.decode()) == Stamp.of("online store")
        client.set(STAMP, NEWER)
        try:
            with pytest.raises(NewerRelease, match=r"online store in Redis .*version 99"):
                other.read("trips", {"pace": []})
            with pytest.raises(NewerRelease, match=r"online store in Redis .*version 99"):
                fill(other)
        finally:
            # Other tests use the same server.
            client.delete(STAMP)
