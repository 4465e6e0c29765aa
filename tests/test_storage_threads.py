"""DuckDB's threads while little of a wide table is computed."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform.storage.threads import FEW_BYTES, WIDE


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    with closing(Lake(Settings(data=tmp_path, duckdb_threads=3))) as lake:
        yield lake


def threads(lake: Lake) -> int:
    with lake.cursor() as cursor:
        return int(cursor.sql("SELECT current_setting('threads')").fetchall()[0][0])


def little() -> int:
    return FEW_BYTES


def test_there_is_one_until_the_last_of_several_is_over(lake: Lake) -> None:
    with lake.threads.suited(WIDE + 1, little):
        with lake.threads.suited(WIDE + 1, little):
            assert threads(lake) == 1
        assert threads(lake) == 1
    assert threads(lake) == 3


def test_there_are_as_many_as_before_after_a_failure(lake: Lake) -> None:
    with pytest.raises(KeyError), lake.threads.suited(WIDE + 1, little):
        raise KeyError
    assert threads(lake) == 3


def test_much_of_a_wide_table_is_computed_by_all(lake: Lake) -> None:
    with lake.threads.suited(WIDE + 1, lambda: FEW_BYTES + 1):
        assert threads(lake) == 3


def test_of_a_narrow_table_it_is_not_asked_how_much(lake: Lake) -> None:
    with lake.threads.suited(WIDE, lambda: pytest.fail("asked")):
        assert threads(lake) == 3
