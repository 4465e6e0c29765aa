"""An entity is erased everywhere, from what older snapshots read too; all else stays as it was."""

import os
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from ml_platform.access import Audit
from ml_platform.backfill.staleness import judge
from ml_platform.cli.app import app
from ml_platform.erasure import Deployment as Places
from ml_platform.erasure import Erasure, erase, named_entity
from ml_platform.features import open_online_store
from ml_platform.scoring.reproduce import reproduce
from ml_platform.sources import ingest
from ml_platform.storage import Lake, rewriting
from ml_platform.storage.known_files import METADATA, known_files
from ml_platform.storage.lost_files import find_lost
from ml_platform.storage.stored_files import StoredFiles
from ml_platform.upkeep.backup import make_backup
from tests import erased_rides
from tests.erased_rides import CUSTOMER, PLANTED, Kept, history
from tests.interrupted import Program
from tests.object_stores import s3_store
from tests.served import Deployment
from tests.trips_use_case import COMMIT, days

pytestmark = pytest.mark.slow

erase_module = import_module("ml_platform.erasure.erase")


@pytest.fixture(scope="module")
def ridden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One deployment; each test erases another customer."""
    found = erased_rides.made(tmp_path_factory.mktemp("ridden"))
    yield found
    found.lake.close()


def erased(made: Deployment, customer: str, *, dry_run: bool = False) -> Erasure:
    store = open_online_store(made.settings)
    where = Places(made.lake, made.registry, store, {"rides": made.use_case})
    named = named_entity(made.use_case, [f"customer={customer}"])
    try:
        return erase(where, made.use_case, named, COMMIT, print, dry_run=dry_run)
    finally:
        store.close()


def newest(lake: Lake) -> int:
    with lake.cursor() as cursor:
        return lake.snapshot(cursor)


def test_no_byte_of_it_is_left_and_all_else_is_as_it_was_at_every_snapshot(
    ridden: Deployment, tmp_path: Path
) -> None:
    data, lake, until = ridden.settings.root, ridden.lake, newest(ridden.lake)
    planted = Kept.of(lake, CUSTOMER, *PLANTED)
    assert {Path(text.rpartition(": ")[0]).suffix for text in planted.in_bytes(data)} >= {
        ".parquet", ".csv", ".jsonl", ".sqlite",
    }  # fmt: skip
    before, states = history(lake, planted, until), standings(ridden)
    done = erased(ridden, CUSTOMER)
    assert done.problems == ()
    assert planted.in_bytes(data) == []
    assert planted.in_columns(data) == []
    after = history(lake, planted, until)
    assert [key for key in before if after[key] != before[key]] == []
    with lake.cursor() as cursor:
        assert find_lost(cursor, ridden.settings.lake_files_uri, reading=True) == []
    (of_case,) = done.use_cases
    assert of_case.trained == (1,)
    assert of_case.samples == {1: 2}
    assert {"rides", "rides_versions", "quarantine", "tickets", "predictions", "labels",
            "requests", "feedback", "ticket_features"} <= of_case.tables.keys()  # fmt: skip
    # Nobody has to compute anything again, and others' predictions come out to the bit.
    assert standings(ridden) == states
    again = reproduce(lake, ridden.registry, ridden.use_case, days(25, 25))
    assert (again.is_exact, again.rows) == (True, 12)
    for source in ("rides", "tickets"):
        report = ingest(lake, ridden.use_case, source, days(1, 26), COMMIT)
        assert not any(counts.changed for counts in report.windows.values())
    assert planted.in_bytes(data) == []
    assert erased(ridden, CUSTOMER, dry_run=True).is_empty


@pytest.mark.parametrize(
    ("step", "customer"),
    [
        ("note_rewritten", "customer-03-qvw"),
        ("forget_online", "customer-04-qvw"),
        ("rewrite_without", "customer-05-qvw"),
        ("delete_at_once", "customer-06-qvw"),
        ("vacuum_files", "customer-07-qvw"),
    ],
)
def test_one_that_was_killed_is_continued(
    ridden: Deployment, monkeypatch: pytest.MonkeyPatch, step: str, customer: str
) -> None:
    kept = Kept.of(ridden.lake, customer)
    assert kept.in_bytes(ridden.settings.root)

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(erase_module, step, killed)
        with pytest.raises(KeyboardInterrupt):
            erased(ridden, customer)
    assert erased(ridden, customer).problems == ()
    assert kept.in_bytes(ridden.settings.root) == []
    assert kept.in_columns(ridden.settings.root) == []


STEPS = ("looking through the lake", "landing", "reference samples", "the online store",
         "data files are written again", "reading every file")  # fmt: skip
"""What the command says, in this order, as it begins with what."""


def test_a_process_that_is_killed_again_and_again_is_continued_in_the_end(
    ridden: Deployment, tmp_path: Path
) -> None:
    kept = Kept.of(ridden.lake, "customer-11-qvw")
    assert kept.in_bytes(ridden.settings.root)
    # DuckDB's and Python's SQLite drop each other's locks within one process.
    ridden.lake.close()
    settings = ridden.settings
    environment = {
        "ML_PLATFORM_USE_CASES": str(settings.use_cases), "ML_PLATFORM_DATA": str(settings.root)
    }  # fmt: skip
    command = ["-m", "ml_platform.cli", "erase", "rides", "--entity", f"customer={kept.customer}",
               "--reason", "request 19", "--by", "ada"]  # fmt: skip
    for number, step in enumerate(STEPS):
        program = Program(command, environment, tmp_path / f"{number}.log")
        try:
            program.wait_for(step)
        finally:
            program.end()
    # What a killed writer has left is only surely nobody's when it is a day old.
    days_ago = time.time() - 3 * 86_400
    for file in Path(settings.lake_files_uri).rglob("*.parquet"):
        os.utime(file, (days_ago, days_ago))
    last = Program(command, environment, tmp_path / "last.log")
    assert last.process.wait(600) == 0, last.said
    assert kept.in_bytes(settings.root) == []
    assert kept.in_columns(settings.root) == []


def test_what_is_written_meanwhile_is_erased_too(
    ridden: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, named = Kept.of(ridden.lake, "customer-08-qvw"), rewriting.take_over

    def take_over(*args: Any) -> int | None:
        """Others recompute what was looked through already."""
        monkeypatch.setattr(rewriting, "take_over", named)
        for view in ("history", "ticket"):
            table = f"lake.rides.{view}_features"
            with ridden.lake.cursor() as cursor:
                cursor.execute(f"CREATE TEMP TABLE again AS FROM {table}")
                cursor.execute(f"DELETE FROM {table}")
                cursor.execute(f"INSERT INTO {table} FROM temp.again")
        return named(*args)

    monkeypatch.setattr(rewriting, "take_over", take_over)
    assert erased(ridden, kept.customer).problems == ()
    assert kept.in_columns(ridden.settings.root) == []


def test_the_command_says_what_it_found_and_the_audit_has_no_value(
    ridden: Deployment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer, backups = "customer-09-qvw", tmp_path / "backups"
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(ridden.settings.use_cases))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(ridden.settings.root))
    make_backup(ridden.lake, str(backups), print)
    kept, noted = Kept.of(ridden.lake, customer), len(Audit(ridden.lake).rows())
    asked = ["--entity", f"customer={customer}", "--reason", "request 17", "--by", "the office"]

    def run(*more: str, code: int = 0) -> str:
        # DuckDB's and Python's SQLite drop each other's locks within one process.
        ridden.lake.close()
        result = CliRunner().invoke(app, ["erase", "rides", *asked, *more])
        assert result.exit_code == code, result.output
        return result.output

    looked = run("--dry-run", "--backup", str(backups))
    assert "table rides" in looked
    assert "landing of rides, 1 files" in looked
    assert "--delete-backups deletes it" in looked
    assert kept.in_columns(ridden.settings.root)
    assert "model versions that may have been trained on it" in run(
        "--backup", str(backups), code=1
    )
    assert kept.in_bytes(ridden.settings.root) == []
    assert kept.in_bytes(backups)
    left = run("--backup", str(backups), "--delete-backups")
    assert "it was erased at" in left
    assert "deleted" in left
    assert kept.in_bytes(backups) == kept.in_columns(backups) == []
    assert "no backup" in run("--backup", str(backups))
    rows = [row for row in Audit(ridden.lake).rows()[noted:] if row.action.what.startswith("erase")]
    assert {row.action.details["decided_by"] for row in rows} == {"the office"}
    assert len({row.action.details["entity"] for row in rows}) == 1
    assert customer not in str(rows)
    refused = CliRunner().invoke(
        app, ["erase", "rides", "--entity", "custmer=1", "--reason", "request 18"]
    )
    assert "no key column 'custmer'. Did you mean 'customer'?; declared: ride" in str(
        refused.exception
    )
    named = CliRunner().invoke(
        app, ["erase", "rides", "--entity", "ride=17", "--reason", "ride 17 asks"]
    )
    assert "stay in the audit" in str(named.exception)


def test_another_value_that_begins_alike_stays(ridden: Deployment) -> None:
    with ridden.lake.cursor() as cursor:
        before = cursor.execute("SELECT count(*) FROM lake.rides.rides").fetchone()
    store = open_online_store(ridden.settings)
    where = Places(ridden.lake, ridden.registry, store, {"rides": ridden.use_case})
    named = named_entity(ridden.use_case, ["ride=1000"])
    done = erase(where, ridden.use_case, named, COMMIT, print)
    store.close()
    assert done.is_empty
    with ridden.lake.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM lake.rides.rides").fetchone() == before


def standings(made: Deployment) -> dict[str, list[tuple[Any, str]]]:
    """Where each partition stands, by table."""
    states = judge(made.lake, made.use_case, days(1, 26))
    return {
        table: [(window, state.standing.value) for window, state in found.items()]
        for table, found in states.items()
    }


def test_a_lake_on_postgres_and_s3_that_is_encrypted_forgets_as_well(
    tmp_path: Path, postgres: Any
) -> None:
    postgres.psql("CREATE DATABASE erased;")
    with s3_store() as store:
        made = erased_rides.made(
            tmp_path,
            catalog=f"postgres:{postgres.get_uri('erased')}",
            lake_files=f"{store.url}/rides/",
            secrets_sql=SecretStr(store.secret_sql),
            extensions=("httpfs",),
            encrypted=True,
        )
        lake, until = made.lake, newest(made.lake)
        planted = Kept.of(lake, CUSTOMER, *PLANTED)
        before = history(lake, planted, until)
        done = erased(made, CUSTOMER)
        assert done.problems == ()
        after = history(lake, planted, until)
        assert [key for key in before if after[key] != before[key]] == []
        assert planted.in_bytes(made.settings.root) == []
        assert erased(made, CUSTOMER, dry_run=True).is_empty
        with lake.cursor() as cursor:
            files = StoredFiles(cursor, made.settings.lake_files_uri).sizes()
            known = known_files(cursor, made.settings.lake_files_uri)
            assert {*files} == {f.path.partition("/rides/")[2] for f in known}
            catalog = cursor.execute(f"FROM {METADATA}.ducklake_file_column_stats").fetchall()
            assert [row for row in catalog if CUSTOMER in str(row)] == []
        lake.close()
