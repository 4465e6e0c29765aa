"""Data files of an encrypted lake get new keys; every snapshot reads the same rows."""

from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from ml_platform.errors import LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Basis, Commit, Lake, Read
from ml_platform.storage.known_files import METADATA, known_files
from ml_platform.storage.lost_files import find_lost
from ml_platform.upkeep import rekeying
from ml_platform.upkeep.rekeying import rekey
from tests.test_storage_rewriting import STATEMENTS, history, run

pytestmark = pytest.mark.slow
COMMIT = Commit("run", "code", "rekey")
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def quiet(_: str) -> None:
    return


def now() -> datetime:
    return datetime.now(UTC)


def keys(lake: Lake) -> set[str | None]:
    with lake.cursor() as cursor:
        return {file.key for file in known_files(cursor, lake.settings.lake_files_uri)}


def paths(lake: Lake) -> set[str]:
    with lake.cursor() as cursor:
        return {file.path for file in known_files(cursor, lake.settings.lake_files_uri)}


@pytest.fixture
def lake(either_catalog: Settings) -> Lake:
    """A lake with a table that was inserted into, deleted from, updated and widened."""
    made = Lake(either_catalog.model_copy(update={"encrypted": True}))
    run(made, *STATEMENTS)
    return made


def test_every_file_has_another_key_and_every_snapshot_the_same_rows(lake: Lake) -> None:
    before, old_keys, old_files = history(lake), keys(lake), paths(lake)
    moment = now()
    done = rekey(lake, COMMIT, moment, quiet)
    assert done.files > 0
    assert not keys(lake) & old_keys
    assert None not in keys(lake)
    assert not [path for path in old_files if Path(path).exists()]
    after = history(lake)
    assert {number: after[number] for number in before} == before
    with lake.cursor() as cursor:
        assert find_lost(cursor, lake.settings.lake_files_uri) == []
    # Nothing is left to do, and what is written later is not touched.
    assert rekey(lake, COMMIT, moment, quiet).files == 0
    lake.close()


def test_one_that_was_interrupted_continues(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before, old_keys = history(lake), keys(lake)
    monkeypatch.setattr(rekeying, "FILES_AT_ONCE", 1)
    moment, really = now(), rekeying.rewrite_without
    calls: list[int] = []

    def dies(*arguments: object) -> int | None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rekeying, "rewrite_without", dies)
    with pytest.raises(KeyboardInterrupt):
        rekey(lake, COMMIT, moment, quiet)
    assert keys(lake) & old_keys
    some = len(calls) - 1
    total = len(before) and rekey(lake, COMMIT, moment, quiet).files
    assert total > 0
    assert len(calls) == some + 1 + total
    assert not keys(lake) & old_keys
    after = history(lake)
    assert {number: after[number] for number in before} == before
    lake.close()


def test_a_computation_that_has_read_need_not_begin_again(lake: Lake) -> None:
    with lake.cursor() as cursor:
        basis = Basis(lake, "x", lake.snapshot(cursor), (Read("t"),))
    rekey(lake, COMMIT, now(), quiet)

    def write(transaction: duckdb.DuckDBPyConnection) -> None:
        assert lake.snapshot(transaction) > basis.snapshot
        basis.require(transaction)

    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, write)
    lake.close()


def test_a_lake_that_is_not_encrypted_has_no_keys(either_catalog: Settings) -> None:
    plain = Lake(either_catalog)
    run(plain, *STATEMENTS)
    with pytest.raises(LakeError, match="is not encrypted, so there are no keys to replace"):
        rekey(plain, COMMIT, LATER, quiet)
    with plain.cursor() as cursor:
        row = cursor.execute(f"SELECT count(*) FROM {METADATA}.ducklake_data_file").fetchone()
    assert row is not None
    assert row[0] > 0
    plain.close()
