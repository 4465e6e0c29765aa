"""A data file that is missing or damaged is named with what it held; a lost catalog is noticed."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform.errors import DataFileLost, LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from ml_platform.storage.forgetting import forget_files
from ml_platform.storage.lost_files import find_lost
from tests.object_stores import ObjectStore, s3_store

COMMIT = Commit("test", "0")
ROWS = 10_000


def fill(lake: Lake) -> None:
    """A table of two files, the second one with windows of March."""
    with lake.cursor() as cursor:
        cursor.execute("CREATE SCHEMA lake.a; CREATE TABLE lake.a.t (x BIGINT, s VARCHAR, "
                       "window_start TIMESTAMP)")  # fmt: skip
        for month in (2, 3):
            lake.transact(
                cursor, COMMIT,
                lambda t, month=month: t.execute(
                    f"""INSERT INTO lake.a.t SELECT i, repeat('x', 20) || i * {month},
                        TIMESTAMP '2024-0{month}-01' + (i % 5) * INTERVAL 1 DAY
                    FROM range({ROWS}) r(i)"""
                ),
            )  # fmt: skip


@pytest.fixture(params=[False, True], ids=["plain", "encrypted"])
def filled(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(Settings(data=tmp_path, encrypted=request.param))
    fill(lake)
    yield lake
    lake.close()


def newest(lake: Lake) -> Path:
    return max(Path(lake.settings.lake_files_uri).rglob("*.parquet"), key=lambda p: p.name)


def open_lake(lake: Lake) -> None:
    with lake.cursor():
        pass


def read(lake: Lake) -> None:
    lake.close()
    with lake.cursor() as cursor:
        cursor.execute("SELECT sum(x), max(s) FROM lake.a.t").fetchall()


DAMAGE = {
    "is missing": lambda content: None,
    "has 0 bytes of": lambda content: b"",
    "bytes of": lambda content: content[: len(content) // 2],
    "cannot be read": lambda content: b"PAR1" + bytes(len(content) - 4),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_file_is_named_with_what_it_held(filled: Lake, problem: str) -> None:
    file = newest(filled)
    changed = DAMAGE[problem](file.read_bytes())
    if changed is None:
        file.unlink()
    else:
        file.write_bytes(changed)
    with pytest.raises(DataFileLost) as raised:
        read(filled)
    said = str(raised.value)
    assert str(file) in said
    assert problem in said
    assert "10,000 rows of a.t of windows 2024-03-01 to 2024-03-05" in said
    assert "ml-platform repair" in said
    with filled.cursor() as cursor:
        (lost,) = find_lost(cursor, filled.settings.lake_files_uri, reading=True)
    assert lost.file.path == str(file)
    assert problem in lost.problem


def test_a_changed_byte_is_found_by_reading_what_is_encrypted(tmp_path: Path) -> None:
    lake = Lake(Settings(data=tmp_path, encrypted=True))
    fill(lake)
    content = bytearray(newest(lake).read_bytes())
    content[500] ^= 1
    newest(lake).write_bytes(content)
    with pytest.raises(DataFileLost, match="verify --reading"):
        read(lake)
    with lake.cursor() as cursor:
        assert find_lost(cursor, lake.settings.lake_files_uri) == []
        (lost,) = find_lost(cursor, lake.settings.lake_files_uri, reading=True)
    assert lost.file.path == str(newest(lake))
    lake.close()


def test_nothing_is_lost_of_a_lake_that_is_whole(filled: Lake) -> None:
    with filled.cursor() as cursor:
        cursor.execute("DELETE FROM lake.a.t WHERE x % 7 = 0")
        assert find_lost(cursor, filled.settings.lake_files_uri, reading=True) == []


def test_deleted_rows_that_are_lost_are_named_too(filled: Lake) -> None:
    with filled.cursor() as cursor:
        cursor.execute("DELETE FROM lake.a.t WHERE x % 7 = 0 AND window_start > '2024-03-01'")
    (deleted,) = Path(filled.settings.lake_files_uri).rglob("*-delete.parquet")
    deleted.unlink()
    with pytest.raises(DataFileLost, match=r"delete.parquet is missing"):
        read(filled)


def test_a_forgotten_file_is_not_read_by_the_newest_snapshot(either_catalog: Settings) -> None:
    lake = Lake(either_catalog)
    fill(lake)
    with lake.cursor() as cursor:
        before = lake.snapshot(cursor)
        cursor.execute("DELETE FROM lake.a.t WHERE x = 1")
    files = Path(either_catalog.lake_files_uri).rglob("*.parquet")
    newest_data = max(file for file in files if "delete" not in file.name)
    newest_data.unlink()
    with lake.cursor() as cursor:
        lost = [each.file for each in find_lost(cursor, either_catalog.lake_files_uri)]
    snapshot = forget_files(lake, lost, COMMIT)
    lake.close()
    with lake.cursor() as cursor:
        assert lake.snapshot(cursor) == snapshot
        assert cursor.execute("SELECT count(*), max(x) FROM lake.a.t").fetchone() == (9_999, 9_999)
        # Others write on top of it.
        lake.transact(
            cursor, COMMIT, lambda t: t.execute("INSERT INTO lake.a.t (x) VALUES (10_000_000)")
        )
        assert cursor.execute("SELECT count(*) FROM lake.a.t").fetchone() == (10_000,)
        (old,) = {each.file.path for each in find_lost(cursor, either_catalog.lake_files_uri)}
        assert old == str(newest_data)
    read_then = f"SELECT max(s) FROM lake.a.t AT (VERSION => {before})"
    wanted = f"which snapshots before {snapshot} read"
    with pytest.raises(DataFileLost, match=wanted), lake.cursor() as cursor:
        cursor.execute(read_then).fetchall()
    with pytest.raises(LakeError, match="replaced meanwhile"):
        forget_files(lake, lost, COMMIT)
    lake.close()


def test_no_new_lake_is_made_over_the_files_of_another(either_catalog: Settings) -> None:
    lake = Lake(either_catalog)
    fill(lake)
    lake.close()
    other = either_catalog.model_copy(
        update={
            "catalog": f"sqlite:{either_catalog.root / 'other.sqlite'}",
            "lake_files": either_catalog.lake_files_uri,
        }
    )
    again = Lake(other)
    with pytest.raises(LakeError, match=r"2 data files of a lake.*ml-platform restore"):
        open_lake(again)
    shutil.rmtree(Path(either_catalog.lake_files_uri))
    with again.cursor() as cursor:
        assert again.snapshot(cursor) == 0
    again.close()


def test_a_lost_catalog_is_noticed(lake: Lake) -> None:
    fill(lake)
    lake.close()
    catalog = Path(lake.settings.catalog_uri.partition(":")[2])
    catalog.unlink()
    for _ in range(2):
        with pytest.raises(LakeError, match="no new lake is made over them"), lake.cursor():
            pass


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with s3_store() as store:
        yield store


@pytest.mark.slow
def test_a_missing_object_is_named(tmp_path: Path, store: ObjectStore) -> None:
    settings = Settings(
        data=tmp_path, lake_files="s3://lakes/lost/", extensions=("httpfs",),
        secrets_sql=store.secret_sql,
    )  # fmt: skip
    lake = Lake(settings)
    fill(lake)
    with lake.cursor() as cursor:
        assert find_lost(cursor, settings.lake_files_uri, reading=True) == []
        (path,) = cursor.execute(
            "SELECT max(path) FROM __ducklake_metadata_lake.ducklake_data_file"
        ).fetchone()
    store.files.delete_file(f"lakes/lost/a/t/{path}")
    with pytest.raises(DataFileLost, match=r"is missing: it holds 10,000 rows of a\.t"):
        read(lake)
    lake.close()
    catalog = Path(settings.catalog_uri.partition(":")[2])
    catalog.unlink()
    with pytest.raises(LakeError, match="1 data files of a lake are below s3://lakes/lost/"):
        open_lake(lake)
