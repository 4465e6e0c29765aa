"""Rows of the request log whose key column is hashed are found by the hash."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from ml_platform.erasure import Deployment as Places
from ml_platform.erasure import Erasure, erase, named_entity
from ml_platform.features import open_online_store
from ml_platform.spec.logged import hashed_value
from tests import erased_rides
from tests.erased_rides import CUSTOMER, RIDES
from tests.served import Deployment
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

SECRET = "a long random text"


@pytest.fixture(scope="module")
def ridden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    root = tmp_path_factory.mktemp("ridden")
    found = erased_rides.made(root, log="{hashed: [ride]}", log_secret=SecretStr(SECRET))
    yield found
    found.lake.close()


def erased(made: Deployment, *pairs: str, log_secret: bytes | None, dry_run: bool) -> Erasure:
    store = open_online_store(made.settings)
    where = Places(made.lake, made.registry, store, {"rides": made.use_case}, log_secret)
    try:
        named = named_entity(made.use_case, pairs)
        return erase(where, made.use_case, named, COMMIT, print, dry_run=dry_run)
    finally:
        store.close()


def rows(made: Deployment, table: str) -> list[str]:
    with made.lake.cursor() as cursor:
        query = f"SELECT prediction_id FROM lake.rides.{table} ORDER BY 1"
        return [found for (found,) in cursor.execute(query).fetchall()]


def hashed_rows(made: Deployment, ride: int) -> list[str]:
    """Predictions of a ride that the log names by its hash."""
    with made.lake.cursor() as cursor:
        query = "SELECT prediction_id FROM lake.rides.requests WHERE ride = ?"
        shown = hashed_value(SECRET.encode(), "ride", ride)
        return [found for (found,) in cursor.execute(query, [shown]).fetchall()]


def test_without_the_key_of_the_hashes_it_is_said_that_rows_stay(ridden: Deployment) -> None:
    found = erased(ridden, f"customer={CUSTOMER}", log_secret=None, dry_run=True)
    (said,) = found.problems
    assert "rows of the request log whose ride is hashed" in said
    assert "set ML_PLATFORM_SERVING_LOG_SECRET" in said
    assert "requests" not in found.use_cases[0].tables


@pytest.mark.parametrize("pair", [f"customer={CUSTOMER}", f"ride={RIDES[2]}"])
def test_rows_are_found_by_an_example_and_by_their_own_key(ridden: Deployment, pair: str) -> None:
    found = erased(ridden, pair, log_secret=SECRET.encode(), dry_run=True)
    assert found.problems == ()
    assert found.use_cases[0].tables["requests"] == 1
    assert found.use_cases[0].tables["feedback"] == 1
    assert sum(found.use_cases[0].landing["requests"].values()) == 1


def test_what_is_hashed_is_erased_and_all_else_stays(ridden: Deployment) -> None:
    (own,) = hashed_rows(ridden, RIDES[2])
    before = {table: rows(ridden, table) for table in ("requests", "feedback")}
    assert all(own in found and len(found) > 1 for found in before.values())
    done = erased(ridden, f"customer={CUSTOMER}", log_secret=SECRET.encode(), dry_run=False)
    assert done.problems == ()
    for table, found in before.items():
        assert rows(ridden, table) == [each for each in found if each != own]
    shown = hashed_value(SECRET.encode(), "ride", RIDES[2])
    files = [file for file in Path(ridden.settings.root).rglob("*") if file.is_file()]
    assert not [file for file in files if str(shown).encode() in file.read_bytes()]
