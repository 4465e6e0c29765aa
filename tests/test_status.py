"""What `ml-platform status` and `ml-platform alerts` say of a deployment."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._utils.error import SerializableErrorInfo

from ml_platform.cli import main
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import Promotion, record
from ml_platform.settings import Settings
from ml_platform.status import Dagster, ask_dagster
from ml_platform.storage import Lake
from tests import dagster_servers as servers
from tests import trips_use_case as trips
from tests.alert_receivers import web_receiver

pytestmark = pytest.mark.slow

Run = Callable[..., tuple[int, str, str]]
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture
def run(
    either_catalog: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command line on trips of four days, whose version 7 waits, and a broken use case."""
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path))
    if either_catalog.catalog is not None:
        monkeypatch.setenv("ML_PLATFORM_CATALOG", either_catalog.catalog)
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", UNREACHABLE)
    monkeypatch.setenv("USER", "ada")
    use_case = trips.write_folder(tmp_path / "use_cases", "binary")
    (tmp_path / "use_cases" / "broken").mkdir()
    (tmp_path / "use_cases" / "broken" / "use_case.yaml").write_text("description: Nothing else\n")
    lake = Lake(Settings())
    trips.land(lake, use_case, trips.trips(1, 4), trips.days(1, 4))
    decided = datetime(2024, 4, 1, tzinfo=UTC)
    for version, decision in ((6, "promoted"), (7, "waiting")):
        promotion = Promotion(version, trips.at(version), decided, "gate", decision, "better")
        record(lake, use_case, promotion, trips.COMMIT)
    lake.close()

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ml-platform", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_status_says_how_each_use_case_is_and_what_is_broken(run: Run) -> None:
    code, said, _ = run("status")
    lines = [" ".join(line.split()) for line in said.splitlines()]
    assert code == 0
    assert lines[0] == "trips Trips"
    assert lines[1].startswith("champion version 6, trained at cutoff 2024-03-06, ")
    assert lines[2] == "drift not judged yet"
    assert lines[4] == "quarantine nothing, limit 5.0%"
    assert "approval version 7 waits since 2024-03-31 20:00 EDT" in lines
    assert any(line.startswith("alerts trips of trips is ") for line in lines)
    assert lines[-2].startswith("broken is broken: ")
    assert "partitions: is missing" in lines[-2]
    assert lines[-1] == f"Dagster: not reachable at {UNREACHABLE}"


def test_a_use_case_that_older_code_wrote_does_not_hide_the_others(
    run: Run, tmp_path: Path
) -> None:
    lake = Lake(Settings())
    older = trips.write_folder(tmp_path / "use_cases", "binary", name="older")
    promotion = Promotion(3, trips.at(3), datetime(2024, 4, 1, tzinfo=UTC), "gate", "promoted", "")
    record(lake, older, promotion, trips.COMMIT)
    with lake.cursor() as cursor:
        cursor.execute("ALTER TABLE lake.older.promotions DROP COLUMN decided_by")
    lake.close()
    code, said, _ = run("status", "--json")
    document = json.loads(said)
    assert code == 1
    assert list(document["use_cases"]) == ["trips"]
    assert document["broken"]["older"].startswith("the tables of older cannot be read: ")
    assert "ml-platform backfill older" in document["broken"]["older"]


def test_the_keys_of_the_json_stay(run: Run) -> None:
    code, said, _ = run("status", "trips", "--json")
    document = json.loads(said)
    assert code == 0
    assert set(document) == {"use_cases", "broken", "dagster"}
    assert document["dagster"] == {"url": UNREACHABLE, "reachable": False, "failing": []}
    found = document["use_cases"]["trips"]
    assert set(found) == {
        "use_case", "at", "timezone", "is_over", "tables", "champion", "drift", "performance",
        "quarantine", "leak_checks", "approvals", "alert_count", "alert_groups", "alerts",
        "mirrors", "costs", "environment", "failing",
    }  # fmt: skip
    tables = found["tables"]
    assert (tables["trips"]["newest"], tables["trips"]["late"] > 700) == ("2024-03-04", True)
    # Its champion serves from the 6th on, when nothing landed.
    assert tables["predictions"]["newest"] is None
    assert tables["predictions"]["late"] == 0
    champion = found["champion"]
    assert (champion["version"], champion["cutoff"]) == (6, "2024-03-06T05:00:00+00:00")
    assert found["drift"] is None
    assert found["approvals"] == [
        {"version": 7, "since": "2024-04-01T00:00:00+00:00", "reason": "better"}
    ]
    alert = next(alert for alert in found["alerts"] if alert["key"] == "freshness/trips")
    assert set(alert) == {
        "key", "kind", "severity", "title", "since", "noted_at", "notified_at", "link",
    }  # fmt: skip
    assert alert["notified_at"] is None


def test_what_speaks_against_a_champion_is_said(run: Run) -> None:
    lake, use_case = Lake(Settings()), trips.write_folder(Settings().use_cases, "binary")
    decided = datetime(2024, 4, 2, tzinfo=UTC)
    promotion = Promotion(
        8,
        trips.at(8),
        decided,
        "gate",
        "promoted",
        "better",
        left_out=("distance",),
        too_good="roc_auc 0.999 of the holdout",
    )
    record(lake, use_case, promotion, trips.COMMIT)
    lake.close()
    _, said, _ = run("status", "trips")
    assert "trained without distance: no row fitted on had a value" in said
    assert "too good to be true: roc_auc 0.999 of the holdout" in said
    _, document, _ = run("status", "trips", "--json")
    champion = json.loads(document)["use_cases"]["trips"]["champion"]
    assert champion["trained_without"] == ["distance"]
    assert champion["too_good_to_be_true"] == "roc_auc 0.999 of the holdout"


def test_alerts_lists_what_is_the_matter(run: Run) -> None:
    code, said, _ = run("alerts", "--use-case", "trips")
    assert code == 0
    assert "Version 7 of trips waits for your approval\n" in said
    assert "  Notified: not yet, no sensor has seen it\n" in said
    assert said.splitlines()[-1] == "channels: none, see ML_PLATFORM_ALERTS"


def test_a_test_message_says_which_channel_took_it(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with web_receiver() as web:
        file = tmp_path / "apprise.conf"
        file.write_text(
            f"trips = {web.url}\nparcels = {UNREACHABLE.replace('http', 'json')}/dead\n"
        )
        monkeypatch.setenv("ML_PLATFORM_ALERTS", str(file))
        code, said, errors = run("alerts", "test")
        assert run("alerts", "test", "--use-case", "trips")[0] == 0
    assert code == 1
    lines = said.splitlines()
    assert lines[0] == "JSON (address 1), for trips: took it"
    assert lines[1].startswith("JSON (address 2), for parcels: failed: A Connection error")
    assert lines[2] == "JSON (address 2): its tag 'parcels' is not a use case, severity or kind"
    assert errors == "error: 1 of 2 channels did not take the message\n"
    assert web.titles == ["Test of the alerts", "Test of the alerts of trips"]
    assert web.received[0]["message"] == "ada tries the channels: alerts arrive here."


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Dagster with automation on, and with alerts that are to go where nothing is."""
    environment = servers.project(
        tmp_path_factory.mktemp("status"), 1, 1,
        ML_PLATFORM_AUTOMATION="true", ML_PLATFORM_ALERTS="nowhere.conf",
    )  # fmt: skip
    with servers.dagster_dev(environment) as url:
        yield url


def wait_for(url: str, seconds: float = 180) -> Dagster:
    deadline = time.monotonic() + seconds
    while not (found := ask_dagster(Settings(dagster_url=url))).failing:
        assert time.monotonic() < deadline, found
        time.sleep(1)
    return found


@pytest.mark.exhaustive
def test_a_failing_sensor_is_named_with_its_error(dagster: str) -> None:
    found = wait_for(dagster)
    assert found.problem is None
    (failing,) = found.of("trips", ["trips", "trips_too"])
    assert (failing.kind, failing.name) == ("sensor", "trips_alerts")
    assert "ML_PLATFORM_ALERTS is neither an Apprise address" in failing.error


@pytest.mark.exhaustive
def test_a_failed_run_is_shown_where_no_sensor_looks_at_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = servers.project(tmp_path, 1, 3)
    with servers.dagster_dev(environment) as url, Orchestrator(url) as orchestrator:
        for name in ("ML_PLATFORM_DATA", "ML_PLATFORM_USE_CASES", "DAGSTER_HOME"):
            monkeypatch.setenv(name, environment[name])
        monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", url)

        def launch(*tables: str) -> str:
            days = ("2024-03-01", "2024-03-03")
            run = orchestrator.launch_range([f"trips/{table}" for table in tables], *days, {}).id
            deadline = time.monotonic() + 180
            while not orchestrator.run(run).status.is_over:
                assert time.monotonic() < deadline
                time.sleep(0.5)
            return run

        def say(*arguments: str) -> str:
            monkeypatch.setattr(sys, "argv", ["ml-platform", *arguments])
            with pytest.raises(SystemExit):
                main()
            return capsys.readouterr().out

        def failed() -> list[dict[str, str]]:
            found = json.loads(say("status", "--json"))["use_cases"]["trips"]["alerts"]
            return [alert for alert in found if alert["kind"] == "failed_run"]

        # Nothing has landed in the lake yet.
        run = launch("labels")
        (alert,) = failed()
        assert alert["key"] == f"failed_run/{run}"
        assert alert["title"] == "A run of trips failed: labels (2024-03-01 to 2024-03-03)"
        assert alert["noted_at"] is None
        assert alert["link"] == f"{url}/runs/{run}"
        assert alert["title"] in " ".join(say("status").split())
        assert "nothing has been written to trips.trips" in say("alerts")
        launch("trips", "labels")
        assert failed() == []
        with dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as home:
            home.add_backfill(
                PartitionBackfill(
                    backfill_id="lost", status=BulkActionStatus.FAILED, from_failure=False, tags={},
                    backfill_timestamp=time.time(),
                    asset_selection=[dg.AssetKey(["trips", "labels"])],
                    error=SerializableErrorInfo("the daemon died", [], "RuntimeError"),
                )
            )  # fmt: skip
        (alert,) = failed()
        assert alert["title"] == "A backfill of trips failed: labels"
        assert alert["link"] == f"{url}/runs/b/lost"
        assert "the daemon died" in say("alerts")
