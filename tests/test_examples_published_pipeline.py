"""The example of a published pipeline on real servers: storage, Dagster, Airflow, callbacks."""

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from published_pipeline import show
from published_pipeline.parcels import land
from published_pipeline.processes import ROOT, until
from published_pipeline.stack import HERE, KEPT, Stack, stack

from ml_platform.access import Audit
from ml_platform.errors import LaunchRefused, RunUnknown
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import Registry
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from tests.azure_store import AZURITE
from tests.data_factory import ActivityFailed, Factory

pytestmark = pytest.mark.slow

PIPELINES = "/control/parcels/pipelines"
FACTORY = json.loads((HERE / "data_factory" / "parcels.json").read_text())
DELETE = "mutation Delete($id: String!) { deletePipelineRun(runId: $id) { __typename } }"
LOCATION = """
query Location($id: ID!) {
  runOrError(runId: $id) { ... on Run { repositoryOrigin { repositoryLocationName } } }
}
"""
SENSORS = """
query Sensors($name: String!) {
  repositoryOrError(
    repositorySelector: {repositoryName: "__repository__", repositoryLocationName: $name}
  ) { ... on Repository { sensors { name } schedules { name } } }
}
"""


class World:
    """The servers of the example, and what the platform itself sees of them."""

    def __init__(self, s: Stack) -> None:
        self.s = s
        self.dagster = Orchestrator(s.dagster_url)
        self.lake, self.registry = Lake(s.settings), Registry(s.settings)
        self.case: UseCase = load_use_case(s.settings.use_cases / "parcels")

    def post(
        self, pipeline: str, version: str = "", key: str | None = None, status: int = 202,
        **body: Any,
    ) -> Any:  # fmt: skip
        at = f"/versions/{version}" if version else ""
        found, answer = self.s.ask(f"{PIPELINES}/{pipeline}{at}/runs", body, key)
        assert found == status, answer
        return answer

    def done(self, pipeline: str, version: str = "", **parameters: Any) -> Any:
        started = self.post(pipeline, version, parameters=parameters)
        run = self.s.follow(started["links"]["self"])
        assert run["status"] == "succeeded", run
        return run

    def notified(self, run_id: str, path: str = "/runs") -> Any:
        """What a receiver was sent about a run, once it was."""

        def found() -> list[Any]:
            return [
                call
                for call in self.s.calls
                if call.path.startswith(path) and of_call(call)["id"] == run_id
            ]

        return until(found, f"the callback of {run_id}")

    def trained_by(self, run_id: str) -> Any:
        """The MLflow run of a training."""
        client = MlflowClient(self.registry.settings.tracking_uri)
        experiments = [each.experiment_id for each in client.search_experiments()]
        (found,) = client.search_runs(experiments, f"tags.dagster_run_id = '{run_id}'")
        return found.data

    def snapshots(self, run_id: str) -> list[dict[str, Any]]:
        """What the commits of a run say."""
        with self.lake.cursor() as cursor:
            rows = cursor.execute(
                "SELECT commit_extra_info FROM lake.snapshots() WHERE commit_extra_info LIKE ?",
                [f"%{run_id}%"],
            ).fetchall()
        return [json.loads(extra) for (extra,) in rows]


def of_call(call: Any) -> Any:
    return (call.body.get("Output") or call.body)["run"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with stack(tmp_path_factory.mktemp("published")) as s:
        world = World(s)
        land(s.settings, "", date(2024, 3, 1), date(2024, 3, 26))
        yield world
        world.dagster.close()
        world.lake.close()


def test_what_has_landed_is_refreshed_before_there_is_a_model(world: World) -> None:
    run = world.done("refresh", **{"from": "2024-03-01", "to": "2024-03-26"})
    assert set(run["tables"]) == {"parcels", "depot_features", "labels"}
    assert run["pipeline"] == {"name": "refresh", "version": world.s.current}
    assert run["partitions"] == {
        "first": "2024-03-01", "last": "2024-03-26", "done": 78, "of": 78,
    }  # fmt: skip
    with world.lake.cursor() as cursor:
        assert cursor.execute("SELECT count(*) FROM lake.parcels.parcels").fetchone() == (26 * 48,)
    if AZURITE:
        assert world.lake.settings.lake_files_uri == "az://lake/files/"


def test_pipelines_and_their_versions_are_listed(world: World) -> None:
    _, listed = world.s.ask(PIPELINES)
    assert [each["name"] for each in listed["pipelines"]] == [
        "train", "score", "backfill", "refresh", "challenger", "scores"
    ]  # fmt: skip
    assert [(each["version"], each["is_current"]) for each in listed["versions"]] == [
        (world.s.current, True), (world.s.earlier, False)
    ]  # fmt: skip
    parameters = [each["pipelines"]["challenger"]["properties"] for each in listed["versions"]]
    assert [set(each) for each in parameters] == [
        {"cutoff", "window", "sample"}, {"cutoff", "window"}
    ]  # fmt: skip
    # Nothing starts by itself at an older version.
    found = world.dagster.post(SENSORS, {"name": KEPT})["repositoryOrError"]
    assert found == {"sensors": [], "schedules": []}


def test_parameters_stand_with_the_run_the_model_and_the_commit(world: World) -> None:
    asked = {"cutoff": "2024-03-24", "window": "20d", "sample": 0.5}
    started = world.post("challenger", parameters=asked, reason="the monthly training")
    run = world.s.follow(started["links"]["self"])
    assert (run["status"], run["parameters"], run["reason"]) == (
        "succeeded", asked, "the monthly training",
    )  # fmt: skip
    tags = world.dagster.run(run["id"]).tags
    assert json.loads(tags["ml_platform/parameters"]) == asked
    assert tags["ml_platform/version"] == world.s.current
    trained = world.trained_by(run["id"])
    assert trained.params["training.window"] == "20d"
    assert trained.params["training.sample"] == "0.5 of the rows"
    assert trained.tags["mlflow.source.git.commit"] == world.s.current
    assert json.loads(trained.tags["ml_platform/parameters"]) == asked
    said = [each for each in world.snapshots(run["id"]) if "parameters" in each]
    assert said
    assert all(json.loads(each["parameters"]) == asked for each in said)
    assert {each["version"] for each in said} == {world.s.current}
    (action,) = [row.action for row in Audit(world.lake).rows(what="run pipeline")][-1:]
    assert (action.details["pipeline"], action.details["version"]) == (
        "challenger",
        world.s.current,
    )
    assert json.loads(action.details["parameters"]) == asked
    (call,) = world.notified(run["id"])
    assert (call.is_signed, call.body["run"]["status"]) == (True, "succeeded")


@pytest.mark.exhaustive
def test_a_version_is_chosen_by_its_commit(world: World) -> None:
    refused = world.post(
        "challenger", world.s.earlier, status=422, parameters={"sample": 0.5}
    )  # fmt: skip
    assert refused["field"] == "parameters.sample"
    run = world.done("challenger", world.s.earlier[:10], cutoff="2024-03-25", window="20d")
    assert run["pipeline"]["version"] == world.s.earlier
    assert world.trained_by(run["id"]).tags["mlflow.source.git.commit"] == world.s.earlier
    missing = world.post("challenger", "0" * 40, status=404)
    assert world.s.earlier in missing["detail"]
    assert world.s.current in missing["detail"]
    assert "names no commit" in world.post("challenger", "main", status=404)["detail"]
    # What names no version runs by the current one, by whichever path.
    _, started = world.s.ask("/control/parcels/train", {"cutoff": "2024-03-26"})
    ended = world.s.follow(started["links"]["self"])
    assert ended["status"] == "succeeded", ended
    assert world.trained_by(ended["id"]).tags["mlflow.source.git.commit"] == world.s.current


def test_files_of_another_folder_are_added_and_predicted(world: World) -> None:
    land(world.s.settings, "archive/late/", date(2024, 3, 27), date(2024, 3, 28))
    run = world.done(
        "refresh",
        **{"from": "2024-03-27", "to": "2024-03-28", "locations": {"parcels": "archive/late/"}},
    )
    assert run["parameters"]["locations"] == {"parcels": "archive/late"}
    assert "predictions" in run["tables"]
    with world.lake.cursor() as cursor:
        count = "SELECT count(*) FROM lake.parcels."
        assert cursor.execute(f"{count}parcels").fetchone() == (28 * 48,)
        assert cursor.execute(f"{count}predictions").fetchone() == (2 * 48,)
    for folder in ("archive/../..", "/etc", "az://landing/other", "archives"):
        refused = world.post(
            "refresh", status=422, parameters={"locations": {"parcels": folder}}
        )  # fmt: skip
        assert refused["field"] == "parameters.locations.parcels"


def test_a_repeat_starts_nothing_and_its_own_address_is_called_too(world: World) -> None:
    def ask(number: int) -> Any:
        uri = f"{world.s.receiver_url}/workflows/{number}"
        asked = {"from": "2024-03-26", "to": "2024-03-26"}
        return world.post("scores", key="scores-1", parameters=asked, callBackUri=uri)

    # Data Factory gives each attempt another address.
    first, second = ask(1), ask(2)
    assert first["run"]["id"] == second["run"]["id"]
    run = world.s.follow(first["links"]["self"])
    for number in (1, 2):
        (call,) = world.notified(run["id"], f"/workflows/{number}")
        assert (call.body["StatusCode"], call.body["Output"]["run"]["id"]) == ("200", run["id"])

    # A delivery is recorded after its answer, so a moment after the receiver has it.
    def shown() -> set[tuple[str, str]]:
        run = world.s.ask(first["links"]["self"])[1]["run"]
        return {(each["to"], each["status"]) for each in run["callbacks"]}

    delivered = {("orchestrator", "delivered"), ("127.0.0.1", "delivered")}
    until(lambda: shown() == delivered, "both callbacks delivered")


def test_it_is_notified_of_a_failure_and_of_an_end_and_after_a_restart(world: World) -> None:
    failed = world.post("challenger", parameters={"cutoff": "2024-03-02"})["run"]["id"]
    ended = world.post("challenger", parameters={"cutoff": "2024-03-23"})["run"]["id"]
    assert world.s.ask(f"/control/runs/{ended}", method="DELETE")[0] in {200, 202}
    lost = world.post("challenger", parameters={"cutoff": "2024-03-22"})["run"]["id"]
    world.s.service.stop()
    for run_id in (failed, ended, lost):
        until(lambda run_id=run_id: world.dagster.run(run_id).status.is_over, run_id)
    world.dagster.post(DELETE, {"id": lost})
    with pytest.raises(RunUnknown):
        world.dagster.run(lost)
    world.s.service.start()
    for run_id, status, said in (
        (failed, "failed", "nothing is left to fit on"),
        (ended, "ended", ""),
        (lost, "failed", "Dagster does not know the run any more"),
    ):
        (call,) = world.notified(run_id)
        assert call.is_signed
        assert call.body["run"]["status"] == status
        assert said in "; ".join(call.body["run"]["failures"])
    expected = {failed: "failed", ended: "ended", lost: "failed"}

    def recorded() -> bool:
        actions = [row.action for row in Audit(world.lake).rows(what="call back")]
        return expected.items() <= {d.details["run"]: d.details["status"] for d in actions}.items()

    until(recorded, f"in the audit log: {expected}")


def called_back(world: World) -> Callable[[float], tuple[str, Callable[[], Any]]]:
    def address(seconds: float) -> tuple[str, Callable[[], Any]]:
        path = f"/workflows/run-{len(world.s.calls)}/callback"

        def wait() -> Any:
            return until(lambda: [c.body for c in world.s.calls if c.path == path], path)[0]

        return f"{world.s.receiver_url}{path}", wait

    return address


def factory(world: World, **parameters: Any) -> Factory:
    asked = {"service": world.s.url, "first": "2024-03-25", "last": "2024-03-26", **parameters}
    return Factory(FACTORY, asked, called_back(world))


def test_a_pipeline_of_data_factory_trains_polls_and_is_called_back(world: World) -> None:
    run = factory(world, cutoff="2024-03-24", sample=0.4)
    run.run()
    assert run.outputs["Look"]["run"]["parameters"] == {
        "cutoff": "2024-03-24", "window": "20d", "sample": 0.4,
    }  # fmt: skip
    assert run.outputs["Scores"]["run"]["partitions"]["done"] == 2
    assert run.variables == {"version": world.s.current}
    assert run.run_id in run.outputs["Scores"]["run"]["reason"]


def test_a_pipeline_of_data_factory_fails_with_the_reason(world: World) -> None:
    with pytest.raises(ActivityFailed, match=r"Fail: training: failed: .*nothing is left to fit"):
        factory(world, cutoff="2024-03-03").run()
    with pytest.raises(ActivityFailed, match=r"Start challenger: 422: .*'9d' should be '10d'"):
        factory(world, cutoff="2024-03-24", window="9d").run()
    with pytest.raises(ActivityFailed, match=r"Scores: 409: .*no promotion is effective"):
        factory(world, cutoff="2024-03-24", first="2024-03-05", last="2024-03-06").run()


@pytest.mark.exhaustive
@pytest.mark.skipif(not show.AIRFLOW.is_dir(), reason="Airflow is not installed: `make airflow`")
def test_airflow_runs_its_dag_and_fails_with_the_reason(world: World) -> None:
    done = show.airflow(world.s, {"cutoff": "2024-03-26", "sample": 0.3})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    runs = {r.tags["ml_platform/pipeline"]: r for r in by_airflow(world)}
    assert {name: run.status.value for name, run in runs.items()} == {
        "challenger": "SUCCESS", "scores": "SUCCESS",
    }  # fmt: skip
    assert json.loads(runs["challenger"].tags["ml_platform/parameters"]) == {
        "cutoff": "2024-03-26", "window": "20d", "sample": 0.3,
    }  # fmt: skip
    refused = show.airflow(world.s, {"window": "90d"})
    said = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert "should be '28d' at most" in said
    failed = show.airflow(world.s, {"cutoff": "2024-03-02"})
    assert failed.returncode != 0
    assert "nothing is left to fit on" in failed.stdout + failed.stderr


def by_airflow(world: World) -> list[Any]:
    reason = "ml_platform/reason"
    return [r for r in world.dagster.runs() if "Airflow" in r.tags.get(reason, "")]


@pytest.fixture(scope="module")
def oddly_called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The kept version's name comes first, and what cannot be started is given up at once."""
    root = tmp_path_factory.mktemp("odd")
    instance = (ROOT / "deploy" / "dagster.yaml").read_text()
    (root / "dagster").mkdir()
    (root / "dagster" / "dagster.yaml").write_text(
        instance.replace("user_code_failure_retries: 10", "user_code_failure_retries: 0")
    )
    with stack(root, ("ml-platform", "a-kept-version")) as s:
        yield s


@pytest.mark.exhaustive
def test_the_current_version_runs_whatever_code_locations_are_called(oddly_called: Stack) -> None:
    with Orchestrator(oddly_called.dagster_url) as dagster:
        assert [each.name for each in dagster.code_locations("parcels")] == [
            "ml-platform", "a-kept-version"
        ]  # fmt: skip
        day = "2024-03-01"
        run = dagster.launch_range(["parcels/parcels"], day, day, {})
        found = dagster.post(LOCATION, {"id": run.id})["runOrError"]
        assert found["repositoryOrigin"]["repositoryLocationName"] == "ml-platform"
        # Which one Dagster's daemon takes nobody can say.
        with pytest.raises(LaunchRefused, match="comes first by name; rename it"):
            dagster.launch_backfill({"parcels/parcels": [(day, day)]}, "a backfill", {})


@pytest.mark.exhaustive
def test_it_is_notified_of_a_run_that_never_started(oddly_called: Stack) -> None:
    s, server = oddly_called, oddly_called.processes["a-kept-version"]
    daemon = s.processes["daemon"]
    # Nothing is taken from the queue before its code server is gone.
    daemon.send_signal(signal.SIGSTOP)
    try:
        status, started = s.ask(
            f"{PIPELINES}/challenger/versions/{s.earlier}/runs",
            {"parameters": {"cutoff": "2024-03-20"}},
        )
        assert (status, started["run"]["status"]) == (202, "queued")
        server.kill()
        server.wait()
    finally:
        daemon.send_signal(signal.SIGCONT)
    run = s.follow(started["links"]["self"])
    assert run["status"] == "failed", run
    (call,) = until(lambda: [c for c in s.calls if of_call(c)["id"] == run["id"]], "the callback")
    assert (call.is_signed, call.body["run"]["status"]) == (True, "failed")
    assert call.body["run"]["partitions"]["done"] == 0
    assert call.body["run"]["failures"] == run["failures"] != []


@pytest.mark.exhaustive
def test_the_example_is_one_command(tmp_path: Path) -> None:
    command = [HERE / "run", "--without-airflow"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the orchestrator was notified: succeeded, signed" in done.stdout
    assert shutil.which("azurite-blob") is None or "az://lake/files/" in done.stdout
