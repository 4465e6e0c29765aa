"""The client of Dagster's GraphQL against a real web server, daemon and code server."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TypeVar

import pytest

from ml_platform.backfill.runs import end_run
from ml_platform.errors import LaunchRefused, OrchestratorError, OrchestratorUnavailable, RunUnknown
from ml_platform.orchestrator import Orchestrator, Outcomes, Run, RunStatus, outcomes_since
from ml_platform.orchestrator.outcomes import backfill_outcomes, planned_tables
from ml_platform.web.runs import read_runs
from tests import dagster_servers as servers

pytestmark = pytest.mark.slow

T = TypeVar("T")

TAGS = {"ml_platform/backfill": "trips"}
MARCH = ("2024-03-01", "2024-03-03")


@pytest.fixture(scope="module")
def dagster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    environment = servers.project(tmp_path_factory.mktemp("orchestrator"), 1, 3)
    with servers.dagster_dev(environment) as url, Orchestrator(url) as found:
        yield found


@pytest.fixture(scope="module")
def ended(dagster: Orchestrator) -> Run:
    tables = ["trips/trips", "trips/pace_features"]
    return wait(dagster, dagster.launch_range(tables, *MARCH, TAGS).id)


def wait(dagster: Orchestrator, run_id: str, seconds: float = 180) -> Run:
    return until(lambda: dagster.run(run_id), lambda run: run.status.is_over, seconds)


def until(ask: Callable[[], T], enough: Callable[[T], bool], seconds: float = 180) -> T:
    deadline = time.monotonic() + seconds
    while not enough(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.5)
    return answer


def test_a_range_of_two_tables_is_one_run(dagster: Orchestrator, ended: Run) -> None:
    assert ended.status is RunStatus.success
    assert ended.partitions == MARCH
    assert set(ended.tables) == {"trips/trips", "trips/pace_features"}
    assert ended.materialized == 6
    assert {table: step.value for table, step in ended.steps.items()} == {
        "trips/trips": "SUCCESS",
        "trips/pace_features": "SUCCESS",
    }
    assert dagster.partitions(["trips/trips"])["trips/trips"].materialized == (MARCH,)


def test_runs_are_found_by_tag_and_status(dagster: Orchestrator, ended: Run) -> None:
    assert [run.id for run in dagster.runs(TAGS, [RunStatus.success])] == [ended.id]
    assert dagster.runs(TAGS, [RunStatus.failure]) == []
    assert dagster.runs({"ml_platform/backfill": "another"}) == []


def test_a_failed_run_says_why_and_which_partitions(dagster: Orchestrator, ended: Run) -> None:
    run = wait(dagster, dagster.launch_range(["trips/predictions"], *MARCH, {}).id)
    assert run.status is RunStatus.failure
    (why,) = dagster.failures(run.id)
    assert why.startswith("trips/predictions: ml_platform.errors.")
    assert dagster.partitions(["trips/predictions"])["trips/predictions"].failed == (MARCH,)
    found = outcomes_since(dagster, datetime.now(UTC) - timedelta(hours=1))
    assert [(each.id, each.job) for each in found.unanswered("trips")] == [(run.id, "__ASSET_JOB")]
    assert found.unanswered("trips_too") == []
    assert found.tried(run) == 1
    assert outcomes_since(dagster, datetime.now(UTC) + timedelta(hours=1)) == Outcomes()


def test_tables_of_a_run_are_known_also_where_it_names_none(
    dagster: Orchestrator, ended: Run
) -> None:
    assert {run: set(tables) for run, tables in planned_tables(dagster, [ended.id]).items()} == {
        ended.id: {"trips/trips", "trips/pace_features"}
    }
    assert planned_tables(dagster, []) == {}


def test_the_daemon_carries_out_a_backfill(dagster: Orchestrator, ended: Run) -> None:
    found = dagster.launch_backfill({"trips/labels": [MARCH]}, "labels", TAGS)
    backfill = until(lambda: dagster.backfill(found), lambda b: b.is_over)
    assert backfill.succeeded
    assert (backfill.targeted, backfill.materialized, backfill.failed) == (3, 3, 0)
    assert len(backfill.run_ids) == 1
    assert dagster.latest_backfill(TAGS) == found
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    (same,) = backfill_outcomes(dagster, ["COMPLETED_SUCCESS"], hour_ago, 5)
    assert (same.id, same.tables, same.error) == (found, ("trips/labels",), None)
    assert backfill_outcomes(dagster, ["FAILED"], hour_ago, 5) == []
    assert dagster.latest_backfill({"ml_platform/backfill": "another"}) is None


@pytest.mark.exhaustive
def test_the_page_of_runs_shows_what_is_under_way_and_what_failed(
    dagster: Orchestrator, ended: Run
) -> None:
    failed = wait(dagster, dagster.launch_range(["trips/predictions"], *MARCH, {}).id)
    found = dagster.launch_backfill({"trips/labels": [MARCH]}, "labels again", TAGS)
    shown = read_runs(dagster, datetime.now(UTC))
    assert failed.id[:8] in [each["id"] for each in shown["failed"]]
    assert ended.id[:8] not in [each["id"] for each in (*shown["failed"], *shown["running"])]
    (backfill,) = shown["backfills"]
    assert backfill["href"].endswith(f"/runs/b/{found}")
    assert until(lambda: dagster.backfill(found), lambda b: b.is_over).succeeded
    assert read_runs(dagster, datetime.now(UTC))["backfills"] == []


def test_a_run_can_be_ended(dagster: Orchestrator, ended: Run) -> None:
    run = dagster.launch_range(["trips/labels"], *MARCH, {})
    end_run(dagster, run.id)
    # Dagster calls it failed where it was ended while its process was just starting.
    assert wait(dagster, run.id).status is RunStatus.canceled or dagster.was_ended(run.id)


def test_refusals_are_in_dagsters_words(dagster: Orchestrator) -> None:
    with pytest.raises(LaunchRefused, match="knows no asset trips/nowhere"):
        dagster.launch_range(["trips/nowhere"], *MARCH, {})
    with pytest.raises(LaunchRefused, match="does not match format"):
        dagster.launch_range(["trips/trips"], "March", "April", {})
    with pytest.raises(RunUnknown, match="could not be found"):
        dagster.run("no such run")
    with pytest.raises(RunUnknown):
        dagster.backfill("nothing")
    with pytest.raises(OrchestratorError, match="Cannot query field 'weather'"):
        dagster.post("{ weather }")


def test_where_nothing_listens_the_error_says_what_to_do() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with Orchestrator(url) as dagster, pytest.raises(OrchestratorUnavailable) as error:
        dagster.runs()
    assert str(error.value).startswith(f"Dagster does not answer at {url} (")
    assert "`make dev`" in str(error.value)
    assert "ML_PLATFORM_DAGSTER_URL" in str(error.value)


def test_another_server_is_not_taken_for_dagster() -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(404)
            self.end_headers()
            self.wfile.write(b"not here")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        with Orchestrator(url) as dagster, pytest.raises(OrchestratorUnavailable, match="HTTP 404"):
            dagster.runs()
    finally:
        server.shutdown()
        server.server_close()
