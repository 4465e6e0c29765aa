"""Tables that are created with all their rows at once, on each kind of database."""

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from ml_platform.errors import TargetError
from ml_platform.publish import write_whole_table
from ml_platform.settings import Settings
from tests.database_servers import Database

MOMENT = datetime(2024, 3, 9, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def settings(database: Database, tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, databases={"shop": SecretStr(database.setting)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    columns = {
        "a number": pa.array([3, 1, None], pa.int64()),
        "share": pa.array([0.1, 2 / 3, None]),
        "note": ["ü" * 300, "it's; \\ \t \n", None],
        "at": pa.array([MOMENT, MOMENT, None], pa.timestamp("us", "UTC")),
        "day": pa.array([date(2024, 3, 9), date(2024, 3, 10), None]),
        "is_late": pa.array([True, False, None]),
        "classes": pa.array(
            [[("a", 0.25)], [("b", 1.0)], None], pa.map_(pa.string(), pa.float64())
        ),
    }
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_what_is_written_is_what_a_client_reads(
    settings: Settings, database: Database, file: Path
) -> None:
    write_whole_table(settings, "shop", ("first",), file)
    found = database.run("SELECT share, note, is_late, classes, at FROM first")
    by_share = {row[0]: row for row in found}
    assert set(by_share) == {0.1, 2 / 3, None}
    assert by_share[0.1][1:4] == ("ü" * 300, True, '{"a":0.25}')
    assert by_share[2 / 3][1:4] == ("it's; \\ \t \n", False, '{"b":1.0}')
    assert by_share[None][1:] == (None, None, None, None)
    assert str(by_share[0.1][4]).startswith("2024-03-09 12:00:00.123456")


def test_of_a_name_that_is_taken_nothing_changes(
    settings: Settings, database: Database, file: Path
) -> None:
    database.run("CREATE TABLE taken (a INT)", "INSERT INTO taken VALUES (7)")
    with pytest.raises(TargetError, match="already"):
        write_whole_table(settings, "shop", ("taken",), file)
    assert database.run("SELECT a FROM taken") == [(7,)]
    # What was left by one that was killed is in nobody's way.
    write_whole_table(settings, "shop", ("other",), file)
    assert database.run("SELECT count(*) FROM other") == [(3,)]


def test_a_column_that_distinguishes_partitions_is_refused(
    settings: Settings, tmp_path: Path
) -> None:
    pd.DataFrame({"Window_Start": [1]}).to_parquet(tmp_path / "odd.parquet")
    with pytest.raises(TargetError, match="cannot have a column 'window_start'; rename it"):
        write_whole_table(settings, "shop", ("odd",), tmp_path / "odd.parquet")
