from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from ml_platform.errors import CommitConflict, LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake

COMMIT = Commit("run-7", "abc123", "a note")
SECRET = "passenger-4711"


def write_note(lake: Lake) -> None:
    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        transaction.execute("CREATE SCHEMA lake.uc")
        transaction.execute("CREATE TABLE lake.uc.notes (note VARCHAR)")
        transaction.execute("INSERT INTO lake.uc.notes VALUES (?)", [SECRET])

    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, work)


def read_notes(lake: Lake) -> list[tuple[str]]:
    with lake.cursor() as cursor:
        return cursor.execute(f"FROM {lake.relation(cursor, 'uc', 'notes')}").fetchall()


def data_files(settings: Settings) -> list[Path]:
    return list((settings.root / "lake" / "files").rglob("*.parquet"))


def test_rows_are_in_files_and_never_in_the_catalog_alone(settings, lake):
    write_note(lake)
    (file,) = data_files(settings)
    assert duckdb.connect().execute("FROM read_parquet(?)", [str(file)]).fetchall() == [(SECRET,)]


def test_encrypted_files_can_be_read_only_through_the_lake(settings):
    lake = Lake(settings.model_copy(update={"encrypted": True}))
    write_note(lake)
    (file,) = data_files(settings)
    assert SECRET.encode() not in file.read_bytes()
    with pytest.raises(duckdb.Error, match="encrypted"):
        duckdb.connect().execute("FROM read_parquet(?)", [str(file)])
    lake.close()
    # The catalog knows that the lake is encrypted, so a reader need not know.
    reader = Lake(settings)
    assert read_notes(reader) == [(SECRET,)]
    reader.close()


def test_a_closed_lake_opens_again(lake):
    write_note(lake)
    lake.close()
    assert read_notes(lake) == [(SECRET,)]
    assert lake_tables(lake) == {"notes"}


def lake_tables(lake: Lake) -> frozenset[str]:
    with lake.cursor() as cursor:
        return lake.tables(cursor, "uc")


def test_times_without_an_offset_are_local_to_the_cursor(lake):
    with lake.cursor("America/New_York") as cursor:
        row = cursor.execute("SELECT epoch(TIMESTAMPTZ '2013-01-01 00:00:00')").fetchone()
    assert row == (1_357_016_400.0,)


def test_the_snapshot_inside_a_transaction_is_the_one_it_reads(lake):
    with lake.cursor() as reader:
        reader.execute("BEGIN")
        before = lake.snapshot(reader)
        write_note(lake)
        assert lake.snapshot(reader) == before
        reader.execute("ROLLBACK")
        assert lake.snapshot(reader) == before + 1


@pytest.mark.parametrize(
    "catalog", ["mysql:user=me password=hush", "hush", "postgresql://u:hush@h"]
)
def test_an_unknown_catalog_is_refused_without_its_password(settings, catalog):
    lake = Lake(settings.model_copy(update={"catalog": catalog}))
    with pytest.raises(LakeError, match="should begin with 'sqlite:' or 'postgres:'") as refusal:
        write_note(lake)
    assert ":hush" not in str(refusal.value)
    assert "password" not in str(refusal.value)


def test_a_catalog_that_is_no_catalog_is_refused_at_once(settings):
    (settings.root / "notes.txt").write_text("not a database, and long enough to be one " * 100)
    lake = Lake(settings.model_copy(update={"catalog": f"sqlite:{settings.root / 'notes.txt'}"}))
    with pytest.raises(LakeError, match="the lake's sqlite catalog cannot be opened"):
        write_note(lake)


def test_an_extension_that_is_not_installed_is_named_with_its_package(settings):
    lake = Lake(settings.model_copy(update={"extensions": ("no_such_extension",)}))
    with pytest.raises(
        LakeError, match=r"'no_such_extension': pip install duckdb-extension-no-such-extension==1\."
    ):
        write_note(lake)


def test_what_cannot_be_mended_by_trying_again_is_raised_at_once(lake):
    attempts = []

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        attempts.append(None)
        transaction.execute("SELECT * FROM lake.uc.nowhere")

    with lake.cursor() as cursor:
        with pytest.raises(duckdb.CatalogException):
            lake.transact(cursor, COMMIT, work)
        # The cursor is not left inside the failed transaction.
        assert cursor.execute("SELECT 1").fetchone() == (1,)
    assert len(attempts) == 1


def test_a_writer_who_never_comes_first_gives_up_with_a_reason(settings):
    lake = Lake(settings.model_copy(update={"commit_retries": 2}))
    write_note(lake)
    attempts = []

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        attempts.append(None)
        transaction.execute("SELECT count(*) FROM lake.uc.notes")
        with lake.cursor() as other:
            other.execute("INSERT INTO lake.uc.notes VALUES ('faster')")
        transaction.execute("INSERT INTO lake.uc.notes VALUES ('slower')")

    with (
        lake.cursor() as cursor,
        pytest.raises(CommitConflict, match="label day 5: other writers came first 3 times"),
    ):
        lake.transact(cursor, replace(COMMIT, message="label day 5"), work)
    assert len(attempts) == 3
    assert read_notes(lake) == [(SECRET,), ("faster",), ("faster",), ("faster",)]
    lake.close()


def test_a_failed_write_of_one_thread_does_not_hold_up_the_next(lake):
    def interrupted(_transaction: duckdb.DuckDBPyConnection) -> None:
        raise KeyboardInterrupt

    with lake.cursor() as cursor, pytest.raises(KeyboardInterrupt):
        lake.transact(cursor, COMMIT, interrupted)
    write_note(lake)
    assert read_notes(lake) == [(SECRET,)]


def test_nothing_is_written_through_a_lake_that_is_read_only(either_catalog: Settings) -> None:
    lake, reader = Lake(either_catalog), Lake(either_catalog, read_only=True)
    write_note(lake)
    assert read_notes(reader) == [(SECRET,)]
    with pytest.raises(LakeError, match="attached in read-only mode"):
        write_note(reader)
    with lake.cursor() as cursor:
        cursor.execute("INSERT INTO lake.uc.notes VALUES ('another')")
    assert len(read_notes(reader)) == 2
    for each in (reader, lake):
        each.close()


def test_a_lake_that_is_read_only_is_never_made(settings: Settings) -> None:
    with pytest.raises(LakeError, match=r"there is no lake: .*catalog\.sqlite does not exist"):
        read_notes(Lake(settings, read_only=True))
    assert not (settings.root / "lake").exists()
