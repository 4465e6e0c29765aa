"""The audit: rows in one chain, which breaks where somebody tampers with it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.access import Audit, Deed
from ml_platform.errors import AuditBroken
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, settings

DEEDS = [
    Deed("ada", "cli", "train", "trips", "version 1", {"cutoff": "2024-01-20"}),
    Deed("bob", "api", "approve", "trips", "version 1", {"reason": "it's better, 'much'"}),
    Deed("ada", "ui", "backfill", "flights", "predictions 2024-01-02…2024-01-05"),
    Deed("bob", "cli", "revoke key", "", "key 3f"),
]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(settings(tmp_path))
    yield lake
    lake.close()


@pytest.fixture
def audit(lake: Lake) -> Audit:
    audit = Audit(lake)
    for deed in DEEDS:
        audit.record(deed, COMMIT)
    return audit


def change(lake: Lake, sql: str) -> None:
    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, lambda t: t.execute(sql))


def test_deeds_stand_in_the_order_in_which_they_were_done(audit: Audit) -> None:
    rows = audit.verify()
    assert [row.deed for row in rows] == DEEDS
    assert [row.sequence for row in rows] == [1, 2, 3, 4]
    assert [row.previous for row in rows[1:]] == [row.hash for row in rows[:-1]]


def test_nothing_recorded_is_whole(lake: Lake) -> None:
    assert Audit(lake).verify() == []


def test_rows_are_found_by_who_what_where_and_when(audit: Audit) -> None:
    def found(**wanted: object) -> list[int]:
        return [row.sequence for row in audit.rows(**wanted)]

    assert found(who="bob") == [2, 4]
    assert found(what="key") == [4]
    assert found(use_case="trips", who="ada") == [1]
    assert found(since=datetime.now(UTC) + timedelta(hours=1)) == []
    assert found(since=datetime.now(UTC) - timedelta(hours=1)) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "column",
    ["who", "channel", "what", "use_case", "object", "details", "previous", "hash"],
)
def test_a_row_that_was_changed_is_named(audit: Audit, lake: Lake, column: str) -> None:
    value = '{"a": "b"}' if column == "details" else "x"
    change(lake, f"UPDATE lake.platform.audit SET \"{column}\" = '{value}' WHERE sequence = 2")
    with pytest.raises(AuditBroken, match="row 2 is not what was recorded") as broken:
        audit.verify()
    assert broken.value.sequence == 2


def test_a_time_that_was_changed_is_found(audit: Audit, lake: Lake) -> None:
    change(
        lake,
        'UPDATE lake.platform.audit SET "at" = "at" + INTERVAL 1 MICROSECOND WHERE sequence = 3',
    )
    with pytest.raises(AuditBroken, match="row 3 is not"):
        audit.verify()


def test_a_row_that_was_taken_out_is_missed(audit: Audit, lake: Lake) -> None:
    change(lake, "DELETE FROM lake.platform.audit WHERE sequence = 2")
    with pytest.raises(AuditBroken, match="row 2 is missing"):
        audit.verify()


def test_a_row_taken_out_and_the_others_moved_up_is_found(audit: Audit, lake: Lake) -> None:
    change(lake, "DELETE FROM lake.platform.audit WHERE sequence = 2")
    change(lake, "UPDATE lake.platform.audit SET sequence = sequence - 1 WHERE sequence > 2")
    with pytest.raises(AuditBroken, match="row 2 is not"):
        audit.verify()


def test_a_row_that_was_put_in_again_is_found(audit: Audit, lake: Lake) -> None:
    change(lake, "INSERT INTO lake.platform.audit FROM lake.platform.audit WHERE sequence = 3")
    with pytest.raises(AuditBroken, match="row 3 is there twice"):
        audit.verify()


def test_a_row_signed_anew_breaks_the_chain_behind_it(audit: Audit, lake: Lake) -> None:
    row = audit.rows()[1]
    forged = type(row)(row.sequence, row.at, DEEDS[0], row.previous, "")
    change(
        lake,
        f"""UPDATE lake.platform.audit SET who = 'ada', channel = 'cli', what = 'train',
        details = '{{"cutoff": "2024-01-20"}}', hash = '{forged.computed()}' WHERE sequence = 2""",
    )
    with pytest.raises(AuditBroken, match="row 3 does not follow"):
        audit.verify()


def test_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    # A lake of its own for each, as processes have.
    lakes = [Lake(settings(tmp_path)) for _ in range(2)]
    Audit(lakes[0]).record(DEEDS[0], COMMIT)
    with ThreadPoolExecutor(2) as pool:
        for lake in lakes * 5:
            pool.submit(Audit(lake).record, DEEDS[1], COMMIT)
    assert len(Audit(lakes[0]).verify()) == 11
    for lake in lakes:
        lake.close()
