"""The audit: rows in one chain, which breaks where somebody tampers with it."""

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from ml_platform.access import START, Action, Audit, Row
from ml_platform.access.audit_checkpoints import AuditCheckpoints
from ml_platform.errors import AuditBroken
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, settings

pytestmark = pytest.mark.slow

ACTIONS = [
    Action("ada", "cli", "train", "trips", "version 1", {"cutoff": "2024-01-20"}),
    Action("bob", "api", "approve", "trips", "version 1", {"reason": "it's better, 'much'"}),
    Action("ada", "ui", "backfill", "flights", "predictions 2024-01-02…2024-01-05"),
    Action("bob", "cli", "revoke key", "", "key 3f"),
]


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(settings(tmp_path))
    yield lake
    lake.close()


@pytest.fixture
def audit(lake: Lake) -> Audit:
    audit = Audit(lake)
    for action in ACTIONS:
        audit.record(action, COMMIT)
    return audit


def change(lake: Lake, sql: str) -> None:
    with lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, lambda t: t.execute(sql))


def test_actions_are_listed_in_the_order_in_which_they_were_done(audit: Audit) -> None:
    rows = audit.verify()
    assert [row.action for row in rows] == ACTIONS
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
    forged = type(row)(row.sequence, row.at, ACTIONS[0], row.previous, "")
    change(
        lake,
        f"""UPDATE lake.platform.audit SET who = 'ada', channel = 'cli', what = 'train',
        details = '{{"cutoff": "2024-01-20"}}', hash = '{forged.computed()}' WHERE sequence = 2""",
    )
    with pytest.raises(AuditBroken, match="row 3 does not follow"):
        audit.verify()


def test_rows_that_are_gone_from_the_end_are_missed(audit: Audit, lake: Lake) -> None:
    change(lake, "DELETE FROM lake.platform.audit WHERE sequence > 2")
    with pytest.raises(AuditBroken, match="ends with row 2, and had 4 once") as broken:
        audit.verify()
    assert broken.value.sequence == 3
    change(lake, "DELETE FROM lake.platform.audit")
    with pytest.raises(AuditBroken, match="ends with row 0"):
        audit.verify()


def made_anew(lake: Lake, rows: Sequence[Row]) -> None:
    """What somebody does who may write the lake, and knows how the hashes are made."""
    change(lake, "DELETE FROM lake.platform.audit")
    elsewhere = lake.settings.root / "audit"
    hidden = elsewhere.rename(elsewhere.with_name("hidden"))
    for row in rows:
        Audit(lake).record(row.action, COMMIT)
    shutil.rmtree(elsewhere)
    hidden.rename(elsewhere)


def test_a_chain_that_was_made_anew_is_found(audit: Audit, lake: Lake) -> None:
    rows = audit.rows()
    made_anew(lake, [rows[0], rows[2], rows[1], rows[3]])
    with pytest.raises(AuditBroken, match="row 1 had another hash once") as broken:
        audit.verify()
    assert "nothing is proved by the rows that are there" in str(broken.value)


def test_an_end_that_was_kept_elsewhere_has_to_be_there(audit: Audit, lake: Lake) -> None:
    kept = audit.verify()[-1].hash
    audit.record(ACTIONS[0], COMMIT)
    assert len(audit.verify(kept)) == 5
    assert len(audit.verify(START)) == 5
    # Also of somebody who can write everything here, the file of ends as well.
    shutil.rmtree(lake.settings.root / "audit")
    change(lake, "DELETE FROM lake.platform.audit WHERE sequence > 3")
    assert len(audit.verify()) == 3
    with pytest.raises(AuditBroken, match="3 rows and none has the hash"):
        audit.verify(kept)


def test_an_end_that_was_being_written_as_the_power_went_is_left_out(audit: Audit) -> None:
    file = AuditCheckpoints(audit.lake.settings).file
    file.write_text(file.read_text() + '{"rows": 9, "ha')
    assert len(audit.verify()) == 4


def test_a_row_is_written_along_with_its_action_or_not_at_all(audit: Audit, lake: Lake) -> None:
    along = replace(COMMIT, also=audit.along(ACTIONS[1]))
    with lake.cursor() as cursor:
        with pytest.raises(duckdb.Error):
            lake.transact(cursor, along, lambda t: t.execute("SELECT 1 FROM nowhere"))
        lake.transact(cursor, along, lambda t: False)
        assert len(audit.verify()) == 4
        lake.transact(cursor, along, lambda t: t.execute("CREATE TABLE lake.platform.x (y INT)"))
        snapshot = lake.snapshot(cursor)
        table = lake.relation(cursor, "platform", "audit", snapshot - 1)
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchone() == (4,)
        # An action of several transactions is one action.
        lake.transact(cursor, along, lambda t: t.execute("INSERT INTO lake.platform.x VALUES (1)"))
    assert [row.action for row in audit.verify()][4:] == [ACTIONS[1]]


def test_what_was_noted_twice_is_one_row(audit: Audit) -> None:
    noted = [replace(ACTIONS[0], details={"note": f"n{number}"}) for number in range(3)]
    audit.record_noted(noted[:2], COMMIT)
    audit.record_noted(noted, COMMIT)
    audit.record_noted([], COMMIT)
    assert [row.action for row in audit.verify()][4:] == noted


def test_writers_at_once_make_one_chain(tmp_path: Path) -> None:
    # A lake of its own for each, as processes have.
    lakes = [Lake(settings(tmp_path)) for _ in range(2)]
    Audit(lakes[0]).record(ACTIONS[0], COMMIT)
    with ThreadPoolExecutor(2) as pool:
        for lake in lakes * 5:
            pool.submit(Audit(lake).record, ACTIONS[1], COMMIT)
    assert len(Audit(lakes[0]).verify()) == 11
    for lake in lakes:
        lake.close()
