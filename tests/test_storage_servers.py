"""The cluster differs from the laptop only in settings."""

import threading
from collections.abc import Iterator

import duckdb
import pytest
from pydantic import SecretStr

from ml_platform.errors import LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from tests.object_stores import S3, s3_thread

COMMIT = Commit("run", "code")

pytestmark = pytest.mark.slow


@pytest.fixture
def bucket() -> Iterator[S3]:
    with s3_thread() as store:
        store.client.create_bucket(Bucket="lake")
        yield store


@pytest.fixture
def on_postgres(settings: Settings, postgres) -> Iterator[Settings]:
    postgres.psql("CREATE DATABASE servers;")
    yield settings.model_copy(update={"catalog": f"postgres:{postgres.get_uri('servers')}"})
    postgres.psql("DROP DATABASE servers WITH (FORCE);")


def test_two_writers_on_postgres_who_both_saw_nothing_do_not_both_write(on_postgres):
    lake = Lake(on_postgres)
    with lake.cursor() as cursor:
        cursor.execute("CREATE SCHEMA lake.uc; CREATE TABLE lake.uc.notes (note VARCHAR)")
    both_have_read, attempts = threading.Barrier(2), []

    def write(name: str) -> None:
        def work(transaction: duckdb.DuckDBPyConnection) -> None:
            attempts.append(name)
            (count,) = transaction.execute("SELECT count(*) FROM lake.uc.notes").fetchone()
            if attempts.count(name) == 1:
                both_have_read.wait()
            if not count:
                transaction.execute(f"INSERT INTO lake.uc.notes VALUES ('{name}')")

        with lake.cursor() as cursor:
            lake.transact(cursor, COMMIT, work)

    writers = [threading.Thread(target=write, args=(name,)) for name in ("a", "b")]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with lake.cursor() as cursor:
        notes = cursor.execute("SELECT count(*) FROM lake.uc.notes").fetchone()
    lake.close()
    assert notes == (1,)
    assert len(attempts) == 3


@pytest.mark.parametrize(
    "server",
    ["postgresql://user:hush@127.0.0.1:1/nowhere", "host=127.0.0.1 port=1 user=u password=hush"],
)
def test_a_server_that_is_not_there_is_an_error_without_its_password(settings, server):
    changed = {"catalog": f"postgres:{server}", "server_wait_seconds": 0}
    lake = Lake(settings.model_copy(update=changed))
    with (
        pytest.raises(LakeError, match="the lake's postgres catalog cannot be opened") as refusal,
        lake.cursor(),
    ):
        pass
    assert "hush" not in str(refusal.value)


def test_files_in_an_object_store_are_written_and_read_through_settings_alone(
    on_postgres, bucket, tmp_path
):
    settings = on_postgres.model_copy(
        update={
            "lake_files": "s3://lake/files/",
            "extensions": ("httpfs",),
            "secrets_sql": SecretStr(bucket.secret_sql),
        }
    )
    lake = Lake(settings)

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        transaction.execute("CREATE SCHEMA lake.uc; CREATE TABLE lake.uc.notes (note VARCHAR)")
        transaction.execute("INSERT INTO lake.uc.notes VALUES ('kept')")

    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, work)
        ((file, *_),) = cursor.execute(
            "FROM ducklake_list_files('lake', 'notes', schema => 'uc')"
        ).fetchall()
        assert cursor.execute("FROM lake.uc.notes").fetchall() == [("kept",)]
    lake.close()
    assert file.startswith("s3://lake/files/uc/notes/")
    assert list(tmp_path.rglob("*.parquet")) == []
