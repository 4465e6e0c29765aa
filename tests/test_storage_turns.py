"""Which errors of a transaction are lost races, and which no retry can mend."""

from collections.abc import Callable

import duckdb
import pytest

from ml_platform.errors import LakeError, LakeUnavailable
from ml_platform.settings import Settings
from ml_platform.storage import Commit, Lake
from ml_platform.storage.patience import Patience
from ml_platform.storage.turns import lost_race

COMMIT = Commit("test", "0")
FLUSH = (
    "TransactionContext Error: Failed to commit: Failed to commit DuckLake transaction.\n"
    "Exceeded the maximum retry count of 0 set by the ducklake_max_retry_count setting.\n"
    '. Consider increasing the value with: e.g., "SET ducklake_max_retry_count = 10;"\n'
    "Failed to flush changes into DuckLake: "
)
QUERY = 'Failed to execute query "INSERT INTO "public".ducklake_snapshot VALUES (7, \'m\')": '
LOST = (
    (duckdb.TransactionException, FLUSH + "database is locked"),
    (
        duckdb.TransactionException,
        FLUSH + QUERY + "ERROR:  duplicate key value violates unique constraint "
        '"ducklake_snapshot_pkey"\nDETAIL:  Key (snapshot_id)=(7) already exists.\n',
    ),
    (
        duckdb.TransactionException,
        "TransactionContext Error: Failed to commit: Failed to commit DuckLake transaction.\n"
        'Transaction conflict - attempting to insert into table with index "1" - but another '
        "transaction has altered it",
    ),
    (duckdb.TransactionException, FLUSH + QUERY + "ERROR:  deadlock detected\nDETAIL:  Process 1"),
    (
        duckdb.TransactionException,
        FLUSH + QUERY + "ERROR:  could not serialize access due to concurrent update",
    ),
    (
        duckdb.TransactionException,
        FLUSH + "UNIQUE constraint failed: ducklake_snapshot.id",
    ),
    (duckdb.Error, "Failed to initialize DuckLake: " + QUERY + "database is locked"),
    (
        duckdb.Error,
        "Failed to initialize DuckLake: " + QUERY + "ERROR:  duplicate key value violates unique "
        'constraint "pg_type_typname_nsp_index"\nDETAIL:  Key (typname)=(x) already exists.\n',
    ),
)
HOPELESS = (
    (duckdb.BinderException, 'Binder Error: Referenced column "conflict_id" not found'),
    (duckdb.CatalogException, "Catalog Error: Column with name c1 already exists!"),
    (duckdb.ConversionException, "Conversion Error: 'database is locked'"),
    (
        duckdb.ConstraintException,
        'Constraint Error: Duplicate key "id: 1" violates unique constraint',
    ),
    (duckdb.TransactionException, FLUSH + "database or disk is full"),
    (
        duckdb.TransactionException,
        FLUSH + "Failed to execute query \"INSERT INTO t VALUES ('deadlock detected')\": "
        "ERROR:  could not extend file",
    ),
    (duckdb.IOException, 'IO Error: Cannot open file "conflict": No such file or directory'),
)


@pytest.mark.parametrize(("kind", "text"), LOST)
def test_what_another_writer_caused_is_a_lost_race(kind: type[duckdb.Error], text: str) -> None:
    assert lost_race(kind(text))


@pytest.mark.parametrize(("kind", "text"), HOPELESS)
def test_what_would_fail_again_is_none(kind: type[duckdb.Error], text: str) -> None:
    assert not lost_race(kind(text))


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT conflict_id FROM (SELECT 1 AS a)",
        "SELECT CAST('database is locked' AS INTEGER)",
        "SELECT error('could not serialize access, deadlock detected, already exists')",
    ],
)
def test_a_statement_that_speaks_of_conflicts_fails_at_once(lake: Lake, statement: str) -> None:
    attempts = []

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        attempts.append(statement)
        transaction.execute(statement).fetchall()

    with pytest.raises(LakeError), lake.cursor() as cursor:
        lake.transact(cursor, COMMIT, work)
    assert len(attempts) == 1


def failing(times: int, error: Callable[[], Exception]) -> Callable[[], int]:
    calls: list[int] = []

    def attempt() -> int:
        calls.append(1)
        if len(calls) <= times:
            raise error()
        return len(calls)

    return attempt


def test_what_is_unavailable_is_tried_again_and_reported_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ml_platform.storage.patience.time.sleep", lambda _: None)
    assert Patience(60)(failing(5, lambda: LakeUnavailable("the server is gone"))) == 6
    assert [record.getMessage() for record in caplog.records] == [
        "waiting up to 60 s: the server is gone"
    ]


def test_patience_ends_and_does_not_begin_again_inside_of_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr("ml_platform.storage.patience.time.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr("ml_platform.storage.patience.time.sleep", sleep)
    patience = Patience(120)
    always = failing(10**9, lambda: LakeUnavailable("gone"))
    with pytest.raises(LakeUnavailable, match="gone; waited 120 s for it") as over:
        patience(lambda: patience(always))
    assert over.value.is_final
    assert 120 <= clock[0] <= 130
    # One that follows is not kept waiting for what is known to be gone.
    with pytest.raises(LakeUnavailable):
        patience(always)
    assert clock[0] <= 130
    # After the server has answered once, the next outage has the whole limit.
    assert patience(lambda: 1) == 1
    with pytest.raises(LakeUnavailable):
        patience(always)
    assert clock[0] >= 240


def test_attempts_that_take_long_to_fail_do_not_continue_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock, attempts = [0.0], []
    monkeypatch.setattr("ml_platform.storage.patience.time.monotonic", lambda: clock[0])
    monkeypatch.setattr("ml_platform.storage.patience.time.sleep", lambda _: None)

    def attempt() -> None:
        attempts.append(clock[0])
        clock[0] += 130
        raise LakeUnavailable("gone")

    with pytest.raises(LakeUnavailable, match="waited 120 s"):
        Patience(120)(attempt)
    assert len(attempts) == 4


def test_no_patience_fails_at_once(settings: Settings) -> None:
    with pytest.raises(LakeUnavailable, match=r"^gone$"):
        Patience(0)(failing(1, lambda: LakeUnavailable("gone")))
