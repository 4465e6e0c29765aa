"""Keys and the audit at the command line."""

import json
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ml_platform.access import Action, Audit, KeyRing
from ml_platform.cli.app import app
from ml_platform.cli.printing import MOST_ROWS
from ml_platform.errors import AccessError, AuditBroken, SpecError, Unauthenticated
from ml_platform.storage import Lake
from tests.served import deploy
from tests.trips_use_case import COMMIT

pytestmark = pytest.mark.slow

NOW = datetime.now(UTC)
PROMOTE = "WHERE what = 'promote'"


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory):
    made = deploy(tmp_path_factory.mktemp("cli"))
    yield made.lake
    made.lake.close()


@pytest.fixture(autouse=True)
def environment(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(lake.settings.use_cases))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(lake.settings.data))
    monkeypatch.setenv("USER", "ada")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_key_is_shown_once_listed_and_revoked(lake: Lake) -> None:
    made = run("keys", "create", "--name", "shop", "--role", "predictor", "--use-case", "trips")
    text = made.stdout.splitlines()[-1]
    ring = KeyRing(lake)
    ring.refresh()
    assert ring.caller(text, NOW).name == "shop"

    listed = run("keys", "list").stdout
    assert "predictor@trips" in listed
    assert "valid" in listed
    # The secret itself may have underscores.
    assert text.split("_", 2)[2] not in listed

    assert "revoked" in run("keys", "revoke", text.split("_")[1]).stdout
    ring.refresh()
    with pytest.raises(Unauthenticated, match="revoked"):
        ring.caller(text, NOW)

    found = run("audit", "--who", "ada", "--what", "key", "--verify").stdout
    assert "all 2 rows are as they were recorded" in found
    assert "create key" in found
    assert "revoke key" in found
    assert "nothing is recorded" in run("audit", "--who", "bob").stdout


def test_a_training_and_a_decision_stand_in_the_audit(lake: Lake) -> None:
    run("train", "trips", "--cutoff", "2024-03-20")
    run("promote", "trips", "1")
    said = run("audit", "--use-case", "trips").stdout
    assert "cutoff: 2024-03-20" in said
    with lake.cursor() as cursor:
        # Both are there from the same snapshot on.
        now = lake.snapshot(cursor)
        for at, count in ((now - 1, 0), (now, 1)):
            for name, condition in (("trips.promotions", ""), ("platform.audit", PROMOTE)):
                rows = f"lake.{name} AT (VERSION => {at}) {condition}"
                assert cursor.execute(f"SELECT count(*) FROM {rows}").fetchone() == (count,)
    # Asking again decides nothing, and is no action.
    run("promote", "trips", "1")
    assert run("audit", "--what", "promote").stdout.count("promote") == 1


def test_where_the_audit_ends_is_shown_and_expected_again(lake: Lake) -> None:
    head = run("audit", "--checkpoint").stdout.strip()
    rows, digest = head.split()
    run("keys", "create", "--name", "late", "--role", "reader", "--use-case", "trips")
    for given in (head, digest):
        assert "as they were recorded" in run("audit", "--expect-checkpoint", given).stdout
    other = run("audit", "--expect-checkpoint", "0" * 63 + "1").exception
    assert isinstance(other, AuditBroken)
    assert int(run("audit", "--checkpoint").stdout.split()[0]) == int(rows) + 1
    assert isinstance(run("audit", "--expect-checkpoint", " ").exception, AccessError)


def test_rows_are_whole_in_a_pipe_and_a_program_can_verify_them(lake: Lake) -> None:
    name = "a long name é " * 20
    run("keys", "create", "--name", name.strip(), "--role", "reader", "--use-case", "trips")
    for _ in range(MOST_ROWS):
        platform = Audit(lake)
        platform.record(Action("ada", "cli", "look", "gone", "x" * 200, {"id": "y" * 64}), COMMIT)
    shown = run("audit").stdout
    assert name.strip() in shown
    assert shown.count("x" * 200) == shown.count("y" * 64) == MOST_ROWS

    whole = run("audit", "--json", "--verify").stdout
    rows = [json.loads(line) for line in whole.splitlines()]
    assert (rows[-1]["use_case"], rows[-1]["details"]) == ("gone", {"id": "y" * 64})
    page = (Path(__file__).parents[1] / "docs" / "serving_access.md").read_text()
    (program,) = re.findall(r"```python\n(import hashlib.*?)```", page, re.DOTALL)

    def verified(text: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, input=text, capture_output=True, text=True, check=False)

    assert verified(whole).stdout.strip() == run("audit", "--checkpoint").stdout.split()[1]
    assert "is not what was recorded" in verified(whole.replace("xx", "xz", 1)).stderr
    assert isinstance(run("audit", "--checkpoint", "--json").exception, AccessError)


def test_a_use_case_that_there_is_not_is_a_mistake(lake: Lake) -> None:
    Audit(lake).record(Action("ada", "cli", "look", "gone", "x"), COMMIT)
    assert "look" in run("audit", "--use-case", "gone").stdout
    assert "nothing is recorded" in run("audit", "--use-case", "gone", "--who", "bob").stdout
    with pytest.raises(SpecError, match=r"no use case 'tripz'\. Did you mean 'trips'\?"):
        raise run("audit", "--use-case", "tripz").exception


def test_a_key_is_for_a_role_and_a_use_case_that_there_are() -> None:
    name = ("keys", "create", "--name", "x")
    assert isinstance(run(*name, "--role", "boss", "--use-case", "trips").exception, AccessError)
    assert run(*name, "--role", "reader", "--use-case", "tripz").exception is not None


def test_an_audit_that_was_tampered_with_is_reported(lake: Lake) -> None:
    with lake.cursor() as cursor:
        lake.transact(
            cursor, COMMIT, lambda t: t.execute("UPDATE lake.platform.audit SET who = 'bob'")
        )
    assert isinstance(run("audit", "--verify").exception, AuditBroken)
