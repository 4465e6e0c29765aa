"""The limit of DuckDB's memory while rows of a database come in."""

import sqlite3
import sys
from contextlib import closing
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, memory
from tests.test_sources_tables import COLUMNS, SPEC


def limit(lake: Lake) -> int:
    with lake.cursor() as cursor:
        (found,) = cursor.execute(
            "SELECT parse_formatted_bytes(current_setting('memory_limit'))"
        ).fetchone()
    return found


def test_it_is_lower_until_the_last_of_several_is_over(tmp_path):
    with closing(Lake(Settings(data=tmp_path, duckdb_threads=2))) as lake:
        before = limit(lake)
        with lake.memory.lowered():
            with lake.memory.lowered():
                assert limit(lake) == 256 * 2**20
            assert limit(lake) == 256 * 2**20
        assert limit(lake) > 0.9 * before


def test_a_lower_one_that_is_set_stays(tmp_path):
    settings = Settings(data=tmp_path, duckdb_threads=2, duckdb_memory="100MiB")
    with closing(Lake(settings)) as lake:
        with lake.memory.lowered():
            assert limit(lake) == 100 * 2**20
        assert limit(lake) == 100 * 2**20


def test_it_is_as_before_after_a_failure(tmp_path):
    with closing(Lake(Settings(data=tmp_path, duckdb_threads=2))) as lake:
        before = limit(lake)
        with pytest.raises(KeyError), lake.memory.lowered():
            raise KeyError
        assert limit(lake) > 0.9 * before


def test_rows_that_are_too_large_for_it_are_ingested_without_it(tmp_path, monkeypatch):
    file, folder = tmp_path / "erp.sqlite", tmp_path / "orders"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(f"CREATE TABLE orders ({COLUMNS.format('', '')})")
        at = "'2024-03-02 12:00:00'"
        connection.execute(
            f"INSERT INTO orders WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            f"WHERE i < 20000) SELECT i, {at}, {at}, 1 FROM n"
        )
        connection.commit()
    folder.mkdir()
    (folder / "use_case.yaml").write_text(SPEC.replace("TABLE", "erp.main.orders"))
    (folder / "labels.sql").write_text(
        "SELECT order_id, ordered_at AS event_time, weight AS label, known_at FROM orders"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    use_case = load_use_case(folder, ["erp"])
    monkeypatch.setattr(memory, "BYTES_A_THREAD", 2**21)
    settings = Settings(
        data=tmp_path / "data", duckdb_threads=1, databases={"erp": SecretStr(f"sqlite:{file}")}
    )
    day = Window(datetime(2024, 3, 2, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC))
    with closing(Lake(settings)) as lake:
        before = limit(lake)
        with lake.memory.lowered():
            assert limit(lake) == 2**21
        reported = []
        module = sys.modules["ml_platform.sources.ingest"]
        monkeypatch.setattr(
            module, "is_out_of_memory", lambda error: reported.append(error) or True
        )
        report = ingest(lake, use_case, "orders", day, Commit("run-1", "abc"))
        (error,) = reported
        assert memory.is_out_of_memory(error)
        assert [counts.ingested for counts in report.windows.values()] == [20_000]
        assert limit(lake) > 0.9 * before
