"""The control API in front of a real web server, daemon and code server."""

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ml_platform.access import Audit
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import history
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.storage import Lake
from tests import dagster_servers as servers
from tests import trips_use_case as trips

# Each test builds on those before it.
pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PATIENCE_SECONDS = 240
LAST = 28


class World:
    """A deployment: Dagster's servers, and a service of two workers that gets requests."""

    def __init__(self, root: Path, environment: dict[str, str], url: str) -> None:
        self.root = root
        self.environment = {
            **environment,
            "ML_PLATFORM_DAGSTER_URL": url,
            "ML_PLATFORM_SERVING_GRPC_PORT": "0",
        }
        self.dagster = Orchestrator(url)
        self.settings = Settings(data=Path(environment["ML_PLATFORM_DATA"]))
        self.use_case = load_use_case(root / "use_cases" / "trips")
        self.lake = Lake(self.settings)
        self.client = httpx2.Client(timeout=120)
        self.server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        port = servers.free_port()
        command = ["ml-platform", "serve", "--workers", "2", "--port", str(port)]
        self.server = servers.start(command, self.environment, self.root / "serve.log")
        self.client.base_url = f"http://127.0.0.1:{port}"
        until(self.answers, "the service")

    def answers(self) -> bool:
        assert self.server is not None
        assert self.server.poll() is None, (self.root / "serve.log").read_text()
        try:
            return self.client.get("/health/live").status_code == 200
        except httpx2.TransportError:
            return False

    def stop(self) -> None:
        assert self.server is not None
        servers.stop(self.server)

    def ask(self, action: str, key: str | None = None, status: int = 202, **parameters: Any) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        answer = self.client.post(f"/control/trips/{action}", json=parameters, headers=headers)
        assert answer.status_code == status, answer.text
        if status == 202:
            assert answer.headers["location"] == answer.json()["links"]["self"]
        return answer.json()

    def wait(self, started: Any) -> Any:
        """The run as it is once it is over."""
        path = started["links"]["self"]
        until(lambda: self.client.get(path).json()["run"]["is_over"], path)
        return self.client.get(path).json()["run"]

    def done(self, action: str, **parameters: Any) -> Any:
        run = self.wait(self.ask(action, **parameters))
        assert run["status"] == "succeeded", run
        return run

    def versions(self) -> dict[str, int]:
        """By day, the version that predicted it."""
        with self.lake.cursor("America/New_York") as cursor:
            rows = cursor.execute(
                "SELECT strftime(event_time, '%d'), max(model_version) "
                "FROM lake.trips.predictions GROUP BY 1"
            ).fetchall()
        return dict(rows)


def until(enough: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not enough():
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    root = tmp_path_factory.mktemp("control")
    environment = servers.project(root, 1, LAST)
    spec = root / "use_cases" / "trips" / "use_case.yaml"
    spec.write_text(
        spec.read_text() + "gate: {min_improvement: -1}\nretrain: {approval: required}\n"
    )
    with servers.dagster_dev(environment) as url:
        world = World(root, environment, url)
        world.start()
        yield world
        world.stop()
        world.client.close()
        world.dagster.close()
        world.lake.close()


def test_a_backfill_is_shown_first_and_then_one_run(world: World) -> None:
    asked = {"from": "2024-03-01", "to": "2024-03-28", "with_sources": True}
    shown = world.ask("backfill", status=200, **asked, dry_run=True)
    assert shown["tables"]["trips"]["to_compute"] == 28
    started = world.ask("backfill", **asked)
    assert started["partitions"] == shown["partitions"]
    # Meanwhile the same backfill is the same run.
    joined = world.ask("backfill", **asked)
    assert (joined["joined"], joined["run"]["id"]) == (True, started["run"]["id"])
    run = world.wait(started)
    assert run["status"] == "succeeded", run
    assert run["partitions"]["done"] == run["partitions"]["of"]
    assert (run["partitions"]["first"], run["partitions"]["last"]) == ("2024-03-01", "2024-03-28")
    assert started["links"]["dagster"] == f"{world.dagster.url}/runs/{run['id']}"
    again = world.ask("backfill", status=200, tables=["trips"], only=True, **asked)
    assert (again["run"], again["partitions"]) == (None, 0)


def test_requests_with_one_key_that_come_at_once_are_one_run(world: World) -> None:
    asked = {"cutoff": "2024-03-22", "reason": "the monthly training"}
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: world.ask("train", "train-1", **asked), range(6)))
    assert all(answer == answers[0] for answer in answers)
    run = world.wait(answers[0])
    assert (run["status"], set(run["tables"])) == ("succeeded", {"model", "promotions"}), str(
        run["failures"]
    )
    assert (run["by"], run["reason"]) == ("anonymous@127.0.0.1", asked["reason"])
    trained = [
        r for r in world.dagster.runs({"user": "anonymous@127.0.0.1"}) if "trips/model" in r.tables
    ]
    assert [r.id for r in trained] == [run["id"]]
    world.ask("train", "train-1", status=422, cutoff="2024-03-21")


def test_a_version_that_waits_is_approved(world: World) -> None:
    assert [p.decision for p in history(world.lake, world.use_case)] == ["waiting"]
    given = world.ask("approve", "approve-1", status=200, version=1, reason="looked at it")
    assert given["decided"]["decision"] == "promoted"
    assert world.ask("approve", "approve-1", status=200, version=1, reason="looked at it") == given


def test_a_range_is_scored_and_a_rollback_recomputes_exactly_what_was_wrong(world: World) -> None:
    run = world.done("score", **{"from": "2024-03-22", "to": "2024-03-25"})
    assert run["tables"] == ["predictions"]
    assert run["partitions"] == {
        "first": "2024-03-22", "last": "2024-03-25", "done": 4, "of": 4,
    }  # fmt: skip
    world.done("train", cutoff="2024-03-26")
    world.ask("approve", status=200, version=2, reason="better")
    world.done("score", **{"from": "2024-03-26", "to": "2024-03-27"})
    world.done("score", partition="2024-03-28")
    assert world.versions() == {
        **dict.fromkeys(("22", "23", "24", "25"), 1), **dict.fromkeys(("26", "27", "28"), 2),
    }  # fmt: skip

    exact = [{"first": "2024-03-26", "last": "2024-03-28"}]
    shown = world.ask("rollback", status=200, reason="odd", dry_run=True)
    assert shown["recomputed"] == {
        "predictions": exact, "drift_report": [], "performance_report": [],
    }  # fmt: skip
    started = world.ask("rollback", "rollback-1", reason="odd")
    assert world.ask("rollback", "rollback-1", reason="odd") == started
    run = world.wait(started)
    assert (run["status"], run["partitions"]) == ("succeeded", {"done": 3, "of": 3})
    assert set(world.versions().values()) == {1}
    recomputed = world.dagster.runs({"ml_platform/cause": "rollback"})
    assert [(r.tables, r.partitions) for r in recomputed] == [
        (("trips/predictions",), ("2024-03-26", "2024-03-28"))
    ]


def test_a_run_can_be_ended(world: World) -> None:
    started = world.ask("score", **{"from": "2024-03-22", "to": "2024-03-28"})
    ended = world.client.delete(started["links"]["self"])
    assert ended.status_code in {200, 202}, ended.text
    assert world.wait(started)["status"] == "ended"
    assert world.client.delete(started["links"]["self"]).json()["run"]["status"] == "ended"


def test_a_run_that_failed_says_why(world: World) -> None:
    run = world.wait(world.ask("train", cutoff="2024-03-01"))
    assert run["status"] == "failed"
    assert any(cause.startswith("trips/model: ") for cause in run["failures"]), run


def test_a_key_holds_after_a_restart_and_without_what_was_stored(world: World) -> None:
    asked = {"cutoff": "2024-03-22", "reason": "the monthly training"}
    first = world.ask("train", "train-1", **asked)
    world.stop()
    # A use case that Dagster's code server does not know, since it has not been reloaded.
    trips.write_folder(world.root / "use_cases", "binary", name="later")
    world.environment["ML_PLATFORM_MAX_PARTITIONS_PER_RUN"] = "5"
    world.start()
    assert world.ask("train", "train-1", **asked) == first
    shutil.rmtree(world.settings.root / "control")
    assert world.ask("train", "train-1", **asked)["run"]["id"] == first["run"]["id"]
    shutil.rmtree(world.settings.root / "control")
    world.ask("train", "train-1", status=422, cutoff="2024-03-21")


def test_what_is_too_long_for_a_run_is_a_backfill_of_the_daemon(world: World) -> None:
    table = {"tables": ["drift_report"], "only": True}
    started = world.ask("backfill", **table, **{"from": "2024-03-22", "to": "2024-03-28"})
    run = world.wait(started)
    assert run["status"] == "succeeded", run
    assert (run["partitions"], len(run["id"])) == ({"done": 7, "of": 7}, 8)
    shown = world.ask("backfill", status=200, **table, dry_run=True)
    assert shown["partitions"] == 0


def test_what_dagster_refuses_is_in_its_own_words(world: World) -> None:
    answer = world.client.post("/control/later/train", json={"cutoff": "2024-03-22"})
    assert answer.status_code == 409, answer.text
    assert "knows no asset later/model" in answer.json()["detail"]
    assert world.client.get("/control/runs/5b0e0c5e-8d0a-4f3c-9a38-3b1f6c1f0a11").status_code == 404
    assert world.client.get("/control/runs/abcdefgh").status_code == 404


def test_every_action_is_in_the_audit_once(world: World) -> None:
    rows = Audit(world.lake).verify()
    actions = [row.action for row in rows]
    assert {action.channel for action in actions} == {"api"}
    assert {action.who for action in actions} == {"anonymous@127.0.0.1"}
    counted = {what: sum(d.what == what for d in actions) for what in {d.what for d in actions}}
    assert counted == {
        "backfill": 2, "train": 3, "approve": 2, "score": 4, "roll back": 1, "end run": 1,
    }  # fmt: skip
