"""The control API without any Dagster: what is refused, what is decided all the same."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from ml_platform.access import Audit, Caller, Grant, create_key
from ml_platform.errors import KeyReused, Overloaded
from ml_platform.registry import Promotion, champion_at, history, record
from ml_platform.rollback import affected_by, recompute
from ml_platform.scoring import score
from ml_platform.serving.control import Train, control_request
from ml_platform.serving.control.answers import FileAnswers, SharedAnswers, open_answers
from ml_platform.serving.control.once import ControlOutcome, Once
from ml_platform.serving.http.declared import ENDPOINTS
from ml_platform.settings import Settings
from ml_platform.storage import Lake
from ml_platform.training import train
from tests.dagster_servers import free_port
from tests.served import ROW, Deployment, deploy
from tests.trips_use_case import COMMIT, at, days

pytestmark = pytest.mark.slow

ACTIONS = {
    declared.path.rpartition("/")[2]: declared.body.kind
    for declared in ENDPOINTS
    if declared.body and declared.path.count("/") == 3 and declared.path.startswith("/control/")
}
RUN = "5b0e0c5e-8d0a-4f3c-9a38-3b1f6c1f0a11"
ROLES = ("reader", "predictor", "labeller", "operator", "approver", "admin")


def without_dagster(root: Path) -> Deployment:
    made = deploy(root)
    url = f"http://127.0.0.1:{free_port()}"
    return replace(made, settings=made.settings.model_copy(update={"dagster_url": url}))


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = without_dagster(tmp_path_factory.mktemp("control"))
    made.promote(20)
    yield made
    made.lake.close()


@dataclass(frozen=True)
class Decided:
    """Version 1 serves from the 20th on, 2 from the 24th on, and 3 waits for a person."""

    deployment: Deployment
    client: TestClient

    def ask(self, action: str, key: str | None = None, **parameters: Any) -> Any:
        headers = {} if key is None else {"Idempotency-Key": key}
        return self.client.post(f"/control/trips/{action}", json=parameters, headers=headers)

    @property
    def decisions(self) -> list[Promotion]:
        return history(self.deployment.lake, self.deployment.use_case)

    @property
    def champion(self) -> int:
        return champion_at(self.decisions, at(30))

    def audited(self, what: str) -> list[Any]:
        return [row.action for row in Audit(self.deployment.lake).rows(what=what)]


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decided]:
    made = without_dagster(tmp_path_factory.mktemp("decided"))
    lake, case = made.lake, made.use_case
    for day, decision in ((20, "promoted"), (24, "promoted"), (28, "waiting")):
        version = train(lake, made.registry, case, at(day), COMMIT, tags={}).version
        figures = {"champion_version": 2.0} if decision == "waiting" else {}
        row = Promotion(version, at(day), datetime.now(UTC), "gate", decision, "better", figures)
        assert record(lake, case, row, COMMIT)
    score(lake, made.registry, case, days(20, 26), COMMIT)
    with made.client() as client:
        yield Decided(made, client)
    made.lake.close()


def test_dagster_unavailable_is_reported_and_predictions_continue(client: TestClient) -> None:
    answer = client.post("/control/trips/train", json={"cutoff": "2024-03-20"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "30"
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Dagster does not answer at http://127.0.0.1" in answer.json()["detail"]
    assert client.get(f"/control/runs/{RUN}").status_code == 503
    assert client.post("/invocations", json={"dataframe_records": [ROW]}).status_code == 200


@pytest.mark.parametrize(
    ("action", "body", "field", "said"),
    [
        ("train", {"cutof": "2024-03-20"}, "cutof", "unknown field"),
        ("train", {"cutoff": 20240320}, "cutoff", "Expected `str"),
        ("train", {"cutoff": "2024-3-20"}, "cutoff", "is not a daily partition"),
        (
            "train",
            {"cutoff": "2024-02-01"},
            "cutoff",
            "is before the first daily partition, '2024-03-01'",
        ),
        ("train", {"cutoff": "9999-12-31"}, "cutoff", ""),
        ("train", {"cutoff": "2200-01-01"}, "cutoff", "has not begun"),
        ("train", {"reason": "two\nlines"}, "reason", "regex"),
        ("train", {"reason": ""}, "reason", "length"),
        ("train", [], "body", "Expected `object`"),
        ("score", {}, "partition", "give a partition, or a range"),
        ("score", {"from": "2024-03-20"}, "to", "give a partition, or a range"),
        ("score", {"partition": "2024-03-20", "to": "2024-03-21"}, "partition", "not both"),
        ("score", {"from": "2024-03-21", "to": "2024-03-20"}, "from", "comes after"),
        ("score", {"partition": "2200-01-01"}, "partition", "is not over"),
        ("backfill", {"tables": ["predictions", "nowhere"]}, "tables", "no table 'nowhere'"),
        ("backfill", {"tables": [1]}, "tables", "Expected `str`"),
        ("backfill", {"to": "March"}, "to", "is not a daily partition"),
        ("backfill", {"from": "2024-03-09", "to": "2024-03-02"}, "from", "not before the end"),
        ("backfill", {"dry_run": "yes"}, "dry_run", "Expected `bool`"),
        ("approve", {"reason": "x"}, "version", "missing required field"),
        ("approve", {"version": "1", "reason": "x"}, "version", "Expected `int`"),
        ("approve", {"version": 10**12, "reason": "x"}, "version", "<= 2147483647"),
        ("reject", {"version": 1}, "reason", "missing required field"),
        ("rollback", {}, "reason", "missing required field"),
        ("rollback", {"reason": "x", "version": 0}, "version", ">= 1"),
        ("rollback", {"reason": "x", "from": "March"}, "from", "is not a daily partition"),
    ],
)
def test_a_wrong_parameter_is_named(
    client: TestClient, action: str, body: Any, field: str, said: str
) -> None:
    answer = client.post(f"/control/trips/{action}", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["field"] == field
    assert said in answer.json()["detail"]


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"reason": "\\ud800"}', b"[" * 100_000])
def test_what_is_no_json_is_refused(client: TestClient, body: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = client.post("/control/trips/train", content=body, headers=headers)
    assert answer.status_code == 400


def test_a_key_that_cannot_be_one_is_refused(client: TestClient) -> None:
    for key in ("", "x" * 256, "t\tb"):
        answer = client.post("/control/trips/train", json={}, headers={"Idempotency-Key": key})
        assert (answer.status_code, answer.json()["field"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    "run", ["nothing", "rollback-trips-99", "rollback-flights-1", "rollback-trips-1", "..", "A" * 9]
)
def test_a_run_that_there_is_not_is_not_found(client: TestClient, run: str) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, f"/control/runs/{run}")
        assert answer.status_code == 404
        assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_use_case_or_action_is_not_found(client: TestClient) -> None:
    assert client.post("/control/flights/train", json={}).status_code == 404
    assert client.post("/control/trips/dance", json={}).status_code == 404
    assert client.get("/control/trips/train").status_code == 405


def test_everything_is_denied_that_no_role_permits(deployment: Deployment) -> None:
    allowed = {
        "train": {"operator", "admin"},
        "score": {"operator", "admin"},
        "backfill": {"operator", "admin"},
        "approve": {"approver", "admin"},
        "reject": {"approver", "admin"},
        "rollback": {"operator", "approver", "admin"},
    }
    assert allowed.keys() == ACTIONS.keys()
    bodies = {"approve": {"version": 9, "reason": "x"}, "reject": {"version": 9, "reason": "x"}}
    expires_at = datetime.now(UTC) + timedelta(days=1)

    def key_of(role: str, use_case: str = "trips") -> dict[str, str]:
        _, text = create_key(
            deployment.lake, f"the {role}", [Grant(role, use_case)], expires_at=expires_at,
            created_by="ada", commit=COMMIT,
        )  # fmt: skip
        return {"x-api-key": text}

    callers = {role: key_of(role) for role in ROLES}
    elsewhere = key_of("admin", "flights")
    with deployment.client(authentication=True) as client:
        for action, roles in allowed.items():
            path, body = f"/control/trips/{action}", bodies.get(action, {"reason": 1})
            assert client.post(path, json=body).status_code == 401
            assert client.post(path, json=body, headers=elsewhere).status_code == 403
            for role, headers in callers.items():
                status = client.post(path, json=body, headers=headers).status_code
                # Who may gets as far as what is wrong with what they ask for.
                assert (status in {400, 404, 409}) == (role in roles), (action, role, status)
                assert (status == 403) == (role not in roles), (action, role, status)
        assert client.get(f"/control/runs/{RUN}").status_code == 401
        assert client.get(f"/control/runs/{RUN}", headers=callers["reader"]).status_code == 503
        assert client.delete(f"/control/runs/{RUN}", headers=callers["reader"]).status_code == 403
        assert client.get("/control/runs/nothing", headers=elsewhere).status_code == 403


def test_the_description_has_every_path_with_examples_that_are_taken(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    served = {
        (method.lower(), route.path.replace("{use_case}", "trips").replace("{pipeline}", pipeline))
        for route in client.app.routes
        if isinstance(route, Route) and route.path.startswith("/control/")
        for method in route.methods - {"HEAD"}
        for pipeline in ("train", "score", "backfill")
    }
    described = {
        (method, path)
        for path, operations in document["paths"].items()
        if path.startswith("/control/")
        for method in operations.keys() - {"parameters"}
    }
    assert described == served
    for name, kind in ACTIONS.items():
        operation = document["paths"][f"/control/trips/{name}"]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        msgspec.convert(body["example"], kind)
        schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
        assert schema["properties"].keys() >= body["example"].keys()
        assert {"400", "403", "404", "409", "422", "503"} <= operation["responses"].keys()


def test_a_dry_run_of_a_backfill_shows_what_is_stale(client: TestClient) -> None:
    asked = {"tables": ["pace_features"], "from": "2024-03-03", "to": "2024-03-05", "only": True}
    shown = client.post("/control/trips/backfill", json={**asked, "dry_run": True})
    assert shown.status_code == 200
    # They were stored by code of version 0.
    table = shown.json()["tables"]["pace_features"]
    assert (table["stale"], table["to_compute"], shown.json()["partitions"]) == (3, 3, 3)
    assert table["which"] == [{"first": "2024-03-03", "last": "2024-03-05"}]
    assert client.post("/control/trips/backfill", json=asked).status_code == 503


def test_nothing_can_be_scored_where_there_was_no_champion(client: TestClient) -> None:
    answer = client.post("/control/trips/score", json={"partition": "2024-03-10"})
    assert answer.status_code == 409
    assert "no promotion is effective" in answer.json()["detail"]


def test_an_approval_is_given_at_once_and_once(decided: Decided) -> None:
    asked = {"version": 3, "reason": "looked at the segments"}
    first = decided.ask("approve", "a-1", **asked)
    assert first.status_code == 200, first.text
    assert first.json()["decided"]["decision"] == "promoted"
    assert first.json()["decided"]["by"] == "anonymous@testclient"
    assert decided.champion == 3
    again = decided.ask("approve", "a-1", **asked)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert decided.ask("approve", "a-1", version=3, reason="another").status_code == 422
    late = decided.ask("approve", **asked)
    assert late.status_code == 409
    assert "was promoted by anonymous@testclient" in late.json()["detail"]
    assert decided.ask("reject", **asked).status_code == 409
    (action,) = decided.audited("approve")
    assert (action.who, action.channel, action.object) == (
        "anonymous@testclient",
        "api",
        "version 3",
    )
    assert action.details["reason"] == "looked at the segments"


def test_what_a_worker_did_not_live_to_say_is_found_again(decided: Decided) -> None:
    shutil.rmtree(decided.deployment.settings.root / "control")
    before = len(decided.decisions)
    again = decided.ask("approve", "a-1", version=3, reason="looked at the segments")
    assert again.status_code == 200, again.text
    assert again.json()["decided"]["decision"] == "promoted"
    assert len(decided.decisions) == before
    assert len(decided.audited("approve")) == 1
    shutil.rmtree(decided.deployment.settings.root / "control")
    assert decided.ask("approve", "a-1", version=3, reason="another").status_code == 422


def test_a_rollback_shows_its_set_is_done_without_dagster_and_can_be_followed(
    decided: Decided,
) -> None:
    asked = {"reason": "too many delays", "version": 1, "from": "2024-03-24"}
    shown = decided.ask("rollback", **asked, dry_run=True)
    assert shown.status_code == 200, shown.text
    exact = [{"first": "2024-03-24", "last": "2024-03-26"}]
    assert shown.json()["recomputed"]["predictions"] == exact
    assert (shown.json()["partitions"], shown.json()["replaced"]) == (3, [2, 3])
    wrong = decided.ask("rollback", **asked, serving=2)
    assert wrong.status_code == 409
    assert "version 3 of trips serves now, not version 2" in wrong.json()["detail"]
    assert decided.champion == 3

    asked["serving"] = 3
    done = decided.ask("rollback", "r-1", **asked)
    assert done.status_code == 202, done.text
    assert done.json()["recomputed"]["predictions"] == exact
    assert decided.champion == 1
    number = len(decided.decisions)
    path = f"/control/runs/rollback-trips-{number}"
    assert done.headers["location"] == path
    assert done.json()["run"]["partitions"] == {"done": 0, "of": 3}
    again = decided.ask("rollback", "r-1", **asked)
    assert again.content == done.content
    # What is left can be made only by Dagster, which is unavailable.
    assert decided.client.get(path).status_code == 503

    shutil.rmtree(decided.deployment.settings.root / "control")
    found = decided.ask("rollback", "r-1", **asked)
    assert (found.status_code, found.headers["location"]) == (202, path)
    assert len(decided.decisions) == number
    assert len(decided.audited("roll back")) == 1

    made = decided.deployment
    left = affected_by(made.lake, made.use_case, decided.decisions, at(24))
    recompute(made.lake, made.registry, made.use_case, left, {"predictions": COMMIT})
    run = decided.client.get(path).json()["run"]
    assert (run["status"], run["partitions"]) == ("succeeded", {"done": 3, "of": 3})
    assert decided.client.delete(path).json()["run"]["status"] == "succeeded"
    for serving, said in ((3, "version 1 of trips serves now"), (1, "already")):
        refused = decided.ask("rollback", **{**asked, "serving": serving})
        assert refused.status_code == 409
        assert said in refused.json()["detail"]


def requested(key: str = "k", cutoff: str | None = None) -> Any:
    return control_request(None, Caller("ada"), "/control/trips/train", key, Train(cutoff))


@pytest.fixture
def workers(either_catalog: Settings) -> Iterator[list[Lake]]:
    """Two workers, on machines of their own where these share a catalog."""
    settings = either_catalog
    found = [settings, settings]
    if settings.catalog is not None:
        files = {"lake_files": str(settings.data / "files")}
        found = [
            settings.model_copy(update={"data": settings.data / name, **files}) for name in "ab"
        ]
    lakes = [Lake(each) for each in found]
    yield lakes
    for lake in lakes:
        lake.close()


def test_of_requests_that_come_at_once_one_is_carried_out(workers: list[Lake]) -> None:
    done: list[int] = []
    asking = threading.Barrier(20)

    def ask(once: Once) -> ControlOutcome:
        asking.wait()
        return once(requested(), do)

    def do() -> ControlOutcome:
        done.append(1)
        return ControlOutcome({"number": len(done), "said": "it's \x00 \U0001f600"}, "a-run")

    first, second = (Once(open_answers(lake)) for lake in workers)
    with ThreadPoolExecutor(20) as threads:
        asked = [threads.submit(ask, once) for once in (first, second) for _ in range(10)]
        answers = [each.result() for each in asked]
    assert len(done) == 1
    assert all(answer.document == answers[0].document for answer in answers)
    assert sorted(answer.is_repeat for answer in answers) == [False, *[True] * 19]
    with pytest.raises(KeyReused):
        second(requested(cutoff="2024-03-01"), do)
    second(requested(key="another"), do)
    assert len(done) == 2


def test_what_failed_is_tried_again_under_the_same_key(workers: list[Lake]) -> None:
    def fail() -> ControlOutcome:
        raise Overloaded("busy")

    first, second = (Once(open_answers(lake)) for lake in workers)
    with pytest.raises(Overloaded):
        first(requested(), fail)
    assert second(requested(), lambda: ControlOutcome({"is": "done"})).document == {"is": "done"}


HOLDER = """
import time
from ml_platform.access import Caller
from ml_platform.serving.control import Train, control_request
from ml_platform.serving.control.answers import open_answers
from ml_platform.serving.control.once import Once
from ml_platform.settings import Settings
from ml_platform.storage import Lake

def hold():
    print("held", flush=True)
    time.sleep(600)

request = control_request(None, Caller("ada"), "/control/trips/train", "k", Train())
Once(open_answers(Lake(Settings())))(request, hold)
"""


def test_a_worker_that_is_killed_while_it_works_holds_nobody_up(workers: list[Lake]) -> None:
    settings, other = workers[0].settings, workers[1]
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(settings.data),
        "ML_PLATFORM_CATALOG": settings.catalog_uri,
        "ML_PLATFORM_LAKE_FILES": settings.lake_files_uri,
    }
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER], env=environment, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    kind = FileAnswers if settings.catalog is None else SharedAnswers
    hasty = kind(settings.root / "control" if kind is FileAnswers else other, wait_seconds=0.1)
    with pytest.raises(Overloaded, match="still being carried out"):
        Once(hasty)(requested(), lambda: ControlOutcome({}))
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    answer = Once(open_answers(other))(requested(), lambda: ControlOutcome({"by": "the next"}))
    assert answer.document == {"by": "the next"}


def test_the_examples_of_the_documentation_are_taken() -> None:
    page = (Path(__file__).parents[1] / "docs" / "control.md").read_text()
    bodies = re.findall(r"/control/\w+/(\w+)[^\n]*? --json '({.*?})'", page)
    assert {name for name, _ in bodies} == set(ACTIONS)
    for name, body in bodies:
        msgspec.json.decode(body.encode(), type=ACTIONS[name])
    for block in re.findall(r"```json\n(.*?)```", page, re.DOTALL):
        json.loads(block)
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        compile(block, "control.md", "exec")
