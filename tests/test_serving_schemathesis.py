"""Everything that openapi.json allows and much that it does not, asked of `/control`."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_platform.access import Audit
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import Promotion, history, record
from ml_platform.scoring import score
from ml_platform.training import train
from tests import dagster_servers as servers
from tests.attacked import Answered, find_no_fault
from tests.served import Deployment, Served, deploy
from tests.trips_use_case import COMMIT, at, days

pytestmark = pytest.mark.slow

CONTROL = ("--include-path-regex", "^/control/")
LAUNCHES = ("train", "score", "backfill")
ACTIONS = (*LAUNCHES, "approve", "reject", "rollback")


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Two versions have served, a third waits, and nothing answers for Dagster."""
    made = deploy(tmp_path_factory.mktemp("asked"))
    for day, decision in ((20, "promoted"), (24, "promoted"), (28, "waiting")):
        version = train(made.lake, made.registry, made.use_case, at(day), COMMIT, tags={}).version
        figures = {"champion_version": 2.0} if decision == "waiting" else {}
        row = Promotion(version, at(day), datetime.now(UTC), "gate", decision, "better", figures)
        assert record(made.lake, made.use_case, row, COMMIT)
    score(made.lake, made.registry, made.use_case, days(20, 26), COMMIT)
    yield with_dagster(made, f"http://127.0.0.1:{servers.free_port()}")
    made.lake.close()


def with_dagster(made: Deployment, url: str) -> Deployment:
    return replace(made, settings=made.settings.model_copy(update={"dagster_url": url}))


@pytest.fixture
def queue(deployment: Deployment) -> Iterator[str]:
    """The address of a Dagster that takes runs and begins none of them."""
    home = deployment.root / "dagster"
    environment = servers.environment_of(deployment.settings.data, deployment.root, home)
    with (home / "dagster.yaml").open("a") as instance:
        instance.write("concurrency: {runs: {max_concurrent_runs: 0}}\n")
    with servers.dagster_dev(environment) as url:
        yield url


def by_action(asked: Sequence[Answered]) -> dict[str, set[int]]:
    """Statuses that were answered, by the last part of the path."""
    statuses: dict[str, set[int]] = {action: set() for action in ACTIONS}
    for each in asked:
        if (action := each.path.rpartition("/")[2]) in statuses:
            statuses[action].add(each.status)
    return statuses


def test_while_dagster_is_unavailable_what_it_would_do_is_503_and_the_rest_is_done(
    deployment: Deployment, served: Served, tmp_path: Path
) -> None:
    url = f"http://{served.http}/openapi.json"
    asked = find_no_fault(url, tmp_path, *CONTROL, examples=50, good=[503])
    assert all(each.headers["retry-after"] == "30" for each in asked if each.status == 503)
    statuses = by_action(asked)
    for action in ("train", "score"):
        assert {400, 503} <= statuses[action] <= {400, 405, 415, 503}
    # Dry runs.
    assert {200, 400, 503} <= statuses["backfill"] <= {200, 400, 405, 415, 503}
    assert {200, 409} <= statuses["approve"] | statuses["reject"]
    assert {200, 202} <= statuses["rollback"]
    assert not {502, 503, 507} & (statuses["approve"] | statuses["reject"] | statuses["rollback"])
    recorded = [row.action.what for row in Audit(deployment.lake).verify()]
    decisions = [p.decision for p in history(deployment.lake, deployment.use_case)]
    assert "rolled back" in decisions
    # The first three were not asked for.
    assert len(recorded) == len(decisions) - 3


@pytest.mark.exhaustive
def test_a_dagster_that_begins_nothing_is_asked_for_much(
    deployment: Deployment, queue: str, tmp_path: Path
) -> None:
    made = with_dagster(deployment, queue)
    before = len(Audit(made.lake).rows())
    with made.served() as served, Orchestrator(queue) as dagster:
        url = f"http://{served.http}/openapi.json"
        phases = "examples,coverage,fuzzing,stateful"
        asked = find_no_fault(url, tmp_path, *CONTROL, phases=phases, examples=5)
        statuses = by_action(asked)
        assert all(202 in statuses[action] for action in LAUNCHES), statuses
        # It found the runs by the answers' `Location`, and ended some.
        assert 200 in {each.status for each in asked if each.method == "DELETE"}
        # Nothing was launched of which the audit does not know.
        actions = [row.action for row in Audit(made.lake).verify()[before:]]
        recorded = {
            action.details["request"]
            for action in actions
            if action.what in {*LAUNCHES, "run pipeline"}
        }
        launched = {
            run.tags["ml_platform/request"] for run in dagster.runs({"user": "anonymous@127.0.0.1"})
        }
        assert launched
        assert launched <= recorded
