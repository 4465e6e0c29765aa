"""Rows are removed from data files for every snapshot; all others stay as they were at each."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from ml_platform.errors import InputsChanged, LakeError
from ml_platform.settings import Settings
from ml_platform.storage import Basis, Commit, Lake, rewriting
from ml_platform.storage.known_files import METADATA, KnownFile, known_files
from ml_platform.storage.lost_files import find_lost
from ml_platform.storage.parquet_columns import reading
from ml_platform.storage.renaming import delete_at_once
from ml_platform.storage.rewriting import Erasing, rewrite_without

COMMIT = Commit("run", "code", "erase")
PLANTED = "planted-zqx-7431-0123456"
GONE = f"name = '{PLANTED}'"
STATEMENTS = (
    "CREATE SCHEMA lake.x",
    "CREATE TABLE lake.x.t (name VARCHAR, n BIGINT, big HUGEINT, seen TIMESTAMPTZ, "
    "shares MAP(VARCHAR, DOUBLE), parts STRUCT(p INTEGER, q VARCHAR[]))",
    "INSERT INTO lake.x.t SELECT CASE WHEN i % 4 = 0 THEN '{0}' ELSE 'n' || i END, i, i, "
    "TIMESTAMPTZ '2024-01-01' + INTERVAL 1 DAY * i, MAP {{'{0}': 0.5}}, "
    "{{'p': i, 'q': ['z' || i]}} FROM range(12) r(i)",
    "INSERT INTO lake.x.t SELECT 'm' || i, i, i, NULL, NULL, NULL FROM range(12) r(i)",
    "INSERT INTO lake.x.t SELECT '{0}', i, i, NULL, NULL, NULL FROM range(12) r(i)",
    "DELETE FROM lake.x.t WHERE n = 3",
    "DELETE FROM lake.x.t WHERE n IN (4, 5)",
    "UPDATE lake.x.t SET big = 77 WHERE n = 8",
    "ALTER TABLE lake.x.t ADD COLUMN more VARCHAR",
    "INSERT INTO lake.x.t SELECT 'l', 99, 1, NULL, NULL, NULL, '{0}' FROM range(11)",
)
MERGE = "CALL ducklake_merge_adjacent_files('lake', 't', schema => 'x')"
REWRITE = "CALL ducklake_rewrite_data_files('lake', 't', schema => 'x', delete_threshold => 0.01)"


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)])
def kept(request: pytest.FixtureRequest, either_catalog: Settings) -> Iterator[Lake]:
    """A lake with a table that was inserted into, deleted from, updated and widened."""
    lake = Lake(either_catalog.model_copy(update={"encrypted": request.param}))
    run(lake, *STATEMENTS)
    yield lake
    lake.close()


def run(lake: Lake, *statements: str) -> None:
    with lake.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement.format(PLANTED)).fetchall()


def history(lake: Lake, where: str = "true", *, numbered: bool = True) -> dict[int, list[Any]]:
    """The rows of every snapshot, with DuckLake's own number and snapshot of each."""
    own = "rowid AS r, snapshot_id AS s," if numbered else ""
    found = {}
    with lake.cursor() as cursor:
        for snapshot in range(2, lake.snapshot(cursor) + 1):
            at = f"(SELECT {own} * FROM lake.x.t AT (VERSION => {snapshot}))"
            rows = cursor.execute(f"FROM {at} WHERE {where}").fetchall()
            found[snapshot] = sorted(rows, key=str)
    return found


def rows_of(lake: Lake, where: str) -> dict[KnownFile, list[int]]:
    found = {}
    with lake.cursor() as cursor:
        for file in known_files(cursor, lake.settings.lake_files_uri):
            if not file.holds_deletes:
                rows = cursor.execute(
                    f"SELECT file_row_number FROM {reading(file.path, file.key)} WHERE {where}"
                ).fetchall()
                if rows:
                    found[file] = [row for (row,) in rows]
    return found


def erased(lake: Lake, where: str = GONE) -> int | None:
    snapshot = rewrite_without(lake, Erasing(rows_of(lake, where)), COMMIT)
    with lake.cursor() as cursor:
        delete_at_once(lake, cursor)
    return snapshot


@pytest.mark.slow
@pytest.mark.every_case
@pytest.mark.parametrize("merged", [True, False])
def test_every_snapshot_reads_all_other_rows_with_their_numbers(kept: Lake, merged: bool) -> None:
    if merged:
        run(kept, MERGE)
    before = history(kept, f"NOT ({GONE})")
    snapshot = erased(kept)
    after = history(kept)
    assert {number: after[number] for number in before} == before
    assert after.pop(snapshot or 0) == before[max(before)]
    run(kept, "UPDATE lake.x.t SET more = 'x' WHERE n = 10", MERGE, REWRITE)
    unnumbered = {n: sorted((r[2:] for r in rows), key=str) for n, rows in before.items()}
    assert {n: history(kept, numbered=False)[n] for n in before} == unnumbered
    with kept.cursor() as cursor:
        assert find_lost(cursor, kept.settings.lake_files_uri, reading=True) == []


def test_no_file_and_no_statistics_hold_an_erased_value(kept: Lake) -> None:
    run(kept, "UPDATE lake.x.t SET shares = NULL, more = NULL WHERE n <> 1000")
    erased(kept, f"{GONE} OR CAST(shares AS VARCHAR) LIKE '%{PLANTED}%' OR n = 99")
    with kept.cursor() as cursor:
        for table in ("file_column_stats", "table_column_stats"):
            rows = cursor.execute(f"FROM {METADATA}.ducklake_{table}").fetchall()
            assert rows
            assert PLANTED not in str(rows)
        assert rows_of(kept, GONE) == {}
    if not kept.settings.encrypted:
        names = [p for p in kept.settings.root.rglob("*.parquet") if p.is_file()]
        assert names
        # Files that a compaction or an update replaced before wait for a day.
        assert [p for p in names if PLANTED.encode() in p.read_bytes()] == []


@pytest.mark.parametrize(
    "meanwhile", ["DELETE FROM lake.x.t WHERE n = 1", pytest.param(REWRITE, marks=pytest.mark.slow)]
)
def test_files_that_were_replaced_meanwhile_are_looked_at_again(
    kept: Lake, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    rows, named = rows_of(kept, GONE), rewriting.take_over

    def take_over(*args: Any) -> int | None:
        monkeypatch.setattr(rewriting, "take_over", named)
        run(kept, meanwhile)
        return named(*args)

    monkeypatch.setattr(rewriting, "take_over", take_over)
    assert rewrite_without(kept, Erasing(rows), COMMIT) is None
    before = history(kept, f"NOT ({GONE})")
    assert erased(kept) is not None
    after = history(kept)
    assert {number: after[number] for number in before} == before
    with kept.cursor() as cursor:
        assert find_lost(cursor, kept.settings.lake_files_uri, reading=True) == []
        assert delete_at_once(kept, cursor) == []


def test_a_computation_that_read_before_begins_again(kept: Lake) -> None:
    with kept.cursor() as cursor:
        basis = Basis(kept, "x", kept.snapshot(cursor))
        basis.require(cursor)
        erased(kept)
        with pytest.raises(InputsChanged, match="rows were erased at snapshot"):
            basis.require(cursor)


def test_who_is_about_to_read_a_file_that_goes_begins_again(kept: Lake) -> None:
    file = next(iter(rows_of(kept, GONE)))
    erased(kept)
    with (
        pytest.raises(InputsChanged, match=r"parquet was replaced while it was read"),
        kept.cursor() as cursor,
    ):
        cursor.execute(f"FROM {reading(file.path, file.key)}").fetchall()


def test_a_file_that_another_engine_wrote_is_rewritten_too(kept: Lake) -> None:
    if kept.settings.encrypted:
        pytest.skip("others cannot write the files of an encrypted lake")
    folder = f"{kept.settings.lake_files_uri.rstrip('/')}/x/t/spark-00c0ffee00c0ffee"
    os.makedirs(folder)
    with kept.cursor() as cursor:
        cursor.execute(
            f"""COPY (SELECT 'n' || i AS name, i::BIGINT AS n, NULL::TIMESTAMPTZ AS seen,
                'm' AS more FROM range(3) r(i) UNION ALL SELECT '{PLANTED}', 7, NULL, 'm')
            TO '{folder}/part-0.parquet' (FORMAT parquet)"""
        )
        cursor.execute(
            f"CALL ducklake_add_data_files('lake', 't', '{folder}/part-0.parquet', "
            "schema => 'x', allow_missing => true)"
        )
    before = history(kept, f"NOT ({GONE})")
    assert erased(kept) is not None
    after = history(kept)
    assert {number: after[number] for number in before} == before
    assert rows_of(kept, GONE) == {}


def test_a_column_that_the_table_has_not_is_named(kept: Lake) -> None:
    rows = rows_of(kept, GONE)
    with kept.cursor() as cursor:
        cursor.execute(f"UPDATE {METADATA}.ducklake_column SET column_name = 'x' "
                       "WHERE column_name = 'big'")  # fmt: skip
    with pytest.raises(LakeError, match=r"x\.t: a data file has a column 'big' that it has not"):
        rewrite_without(kept, Erasing(rows), COMMIT)
