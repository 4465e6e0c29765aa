"""Data files of killed writers are swept, and no other file ever."""

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.errors import LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from ml_platform.storage.orphans import find_orphans, sweep_orphans
from tests.dagster_servers import ROOT

COMMIT = Commit("test", "0")
KILLED = """
import os, signal, sys
from pathlib import Path
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake

def work(transaction):
    transaction.execute("INSERT INTO lake.a.t SELECT unnest(range(1000))")
    os.kill(os.getpid(), signal.SIGKILL)

lake = Lake(Settings(data=Path(sys.argv[1])))
with lake.cursor() as cursor:
    lake.transact(cursor, Commit("killed", "0"), work)
"""


@pytest.fixture
def killed(lake: Lake) -> Lake:
    """A lake with a table of one row, and a file of a writer that was killed."""
    with lake.cursor() as cursor:
        cursor.execute("CREATE SCHEMA lake.a; CREATE TABLE lake.a.t (x BIGINT)")
        lake.transact(cursor, COMMIT, lambda t: t.execute("INSERT INTO lake.a.t VALUES (7)"))
    command = [sys.executable, "-c", KILLED, str(lake.settings.data)]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    assert len(files(lake.settings)) == 2
    return lake


def files(settings: Settings) -> list[Path]:
    return sorted(Path(settings.lake_files_uri).rglob("*.parquet"))


def now() -> datetime:
    return datetime.now(UTC) + timedelta(seconds=1)


def test_the_file_of_a_killed_writer_is_swept_and_no_other(killed: Lake) -> None:
    swept = sweep_orphans(killed, now())
    assert len(swept.files) == 1
    assert len(files(killed.settings)) == 1
    with killed.cursor() as cursor:
        assert cursor.execute("FROM lake.a.t").fetchall() == [(7,)]
    assert sweep_orphans(killed, now()).files == ()


def test_files_of_snapshots_that_are_no_longer_the_newest_stay(killed: Lake) -> None:
    with killed.cursor() as cursor:
        before = killed.snapshot(cursor)
        killed.transact(cursor, COMMIT, lambda t: t.execute("DELETE FROM lake.a.t"))
        sweep_orphans(killed, now())
        old = killed.relation(cursor, "a", "t", before)
        assert cursor.execute(f"FROM {old}").fetchall() == [(7,)]


def test_a_file_of_a_writer_at_work_is_too_young(killed: Lake) -> None:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert sweep_orphans(killed, yesterday).files == ()
    with killed.cursor() as cursor:

        def work(transaction) -> None:
            transaction.execute("INSERT INTO lake.a.t SELECT unnest(range(5))")
            assert sweep_orphans(killed, yesterday).files == ()

        killed.transact(cursor, COMMIT, work)
        assert cursor.execute("SELECT count(*) FROM lake.a.t").fetchone() == (6,)


def test_nothing_is_swept_where_the_catalog_names_one_of_the_files(killed: Lake) -> None:
    # As where the lake's folder is looked at by another path than that of the catalog.
    (used,) = [f for f in files(killed.settings) if f.stat().st_size and _is_used(killed, f)]
    moved = used.parent / "elsewhere"
    moved.mkdir()
    os.link(used, moved / used.name)
    with pytest.raises(LakeError, match="and the catalog names it; nothing was deleted"):
        sweep_orphans(killed, now())
    assert len(files(killed.settings)) == 3


def _is_used(lake: Lake, file: Path) -> bool:
    with lake.cursor() as cursor:
        return str(file) not in find_orphans(lake, cursor, now()).files


def test_files_of_others_are_never_touched(killed: Lake) -> None:
    other = Path(killed.settings.lake_files_uri) / "other.parquet"
    other.write_bytes(b"")
    with pytest.raises(LakeError, match=r"other\.parquet is below the lake's folder"):
        sweep_orphans(killed, now())
    assert other.exists()
    assert len(files(killed.settings)) == 3
