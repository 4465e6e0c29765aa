"""The retraining sensor, evaluated on a real lake, registry and instance."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.test_utils import create_run_for_test

from ml_platform.monitoring import report_drift
from ml_platform.registry import Registry
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.spec.duration import Duration
from ml_platform.spec.modelling import Retrain
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Drift, Monitoring
from ml_platform.storage import Lake
from ml_platform.training import decide, train
from ml_platform_dagster.assets.partitions import cutoffs_of, partitions_of
from ml_platform_dagster.resources import LakeResource, RegistryResource
from ml_platform_dagster.resources.reasons import CAUSE, FAILED, REASON, TRAINING_WINDOW
from ml_platform_dagster.sensors.attempts import ATTEMPT_OF
from ml_platform_dagster.sensors.retraining import build_retraining, build_retraining_schedule
from ml_platform_dagster.sensors.running import UNFINISHED
from tests import trips_use_case as trips

pytestmark = pytest.mark.slow

MODEL = dg.AssetKey(["trips", "model"])


@dataclass
class World:
    use_case: UseCase
    lake: Lake
    registry: Registry

    def ask(self, instance: dg.DagsterInstance, cursor: str | None = None) -> object:
        (sensor,) = build_retraining(self.use_case, Settings())
        resources = {"lake": LakeResource(), "registry": RegistryResource()}
        with dg.build_sensor_context(instance, cursor=cursor, resources=resources) as context:
            return sensor(context)

    def request(self, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.RunRequest:
        asked = self.ask(instance, cursor)
        assert isinstance(asked, dg.RunRequest), asked
        return asked

    def challenge(self, day: int) -> str:
        version = train(
            self.lake, self.registry, self.use_case, trips.at(day), trips.COMMIT, tags={}
        ).version
        return decide(
            self.lake, self.registry, self.use_case, version, trips.COMMIT, decided_by="ada"
        ).promotion.decision


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A champion of the 21st; each day from then on drifts by a threshold that all reach."""
    root = tmp_path_factory.mktemp("sensor")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_DATA", str(root / "data"))
        use_case = trips.write_folder(root / "use_cases", "binary").model_copy(
            update={
                "monitoring": Monitoring(
                    window=Duration(3, "d"), drift=Drift(threshold=1e-6, min_rows=20)
                ),
                "retrain": Retrain(
                    on=("drift", "performance", "schedule"),
                    cooldown=Duration(0, "d"),
                    window=Duration(12, "d"),
                ),
            }
        )
        lake = Lake(Settings())
        world = World(use_case, lake, Registry(Settings()))
        trips.land(lake, use_case, trips.trips(1, 28), trips.days(1, 28))
        assert world.challenge(21) == "promoted"
        watch(world, 21, 26)
        yield world
        lake.close()


def watch(world: World, first: int, last: int) -> None:
    window_range = trips.days(first, last)
    score(world.lake, world.registry, world.use_case, window_range, trips.COMMIT)
    report_drift(world.lake, world.registry, world.use_case, window_range, trips.COMMIT)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


def test_failing_windows_ask_for_a_training_that_says_why(
    world: World, instance: dg.DagsterInstance
) -> None:
    request = world.request(instance)
    failed = ", ".join(f"2024-03-{day}" for day in range(22, 27))
    assert request.partition_key == "2024-03-27"
    assert request.tags == {
        CAUSE: "drift",
        REASON: f"drift failed in 5 of 5 partitions: {failed}",
        FAILED: failed,
        TRAINING_WINDOW: "12d",
        ATTEMPT_OF: f"trips_retraining_sensor/{request.run_key}",
    }


def test_there_is_one_sensor_for_both_causes(world: World) -> None:
    # Dagster keeps run keys by sensor: two sensors with one key would start two runs.
    (sensor,) = build_retraining(world.use_case, Settings())
    assert sensor.name == "trips_retraining_sensor"


def test_asked_again_before_the_run_exists_it_names_the_same_run_key(
    world: World, instance: dg.DagsterInstance
) -> None:
    # After a crash of the daemon, with a cursor that was lost or is another one.
    keys = {world.request(instance, cursor).run_key for cursor in (None, "", "7")}
    assert len(keys) == 1


@pytest.mark.parametrize("status", UNFINISHED)
def test_nothing_is_started_while_a_training_is_queued_or_running(
    world: World, instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    # A queued run has to say where it came from.
    location = RegisteredCodeLocationOrigin("ml-platform")
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(location, "trips"), "training")
    run = create_run_for_test(
        instance, status=status, asset_selection=frozenset({MODEL}), remote_job_origin=origin
    )
    skipped = world.ask(instance)
    assert isinstance(skipped, dg.SkipReason)
    assert skipped.skip_message is not None
    assert f"run {run.run_id} trains trips ({status.value})" in skipped.skip_message


def test_a_running_job_that_is_going_to_train_counts_too(
    world: World, instance: dg.DagsterInstance
) -> None:
    @dg.asset(key=MODEL)
    def model() -> None: ...

    job = dg.Definitions(
        [model], jobs=[dg.define_asset_job("all_of_it", selection=[MODEL])]
    ).resolve_job_def("all_of_it")
    instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert isinstance(world.ask(instance), dg.SkipReason)


def test_a_finished_training_and_other_runs_are_no_hindrance(
    world: World, instance: dg.DagsterInstance
) -> None:
    others = frozenset({dg.AssetKey(["parcels", "model"]), dg.AssetKey(["trips", "predictions"])})
    create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, asset_selection=others)
    for status in (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE):
        create_run_for_test(instance, status=status, asset_selection=frozenset({MODEL}))
    world.request(instance)


def test_the_schedule_says_so_too(world: World) -> None:
    model = world.use_case.model.model_copy(update={"schedule": "0 5 1 * *"})
    use_case = world.use_case.model_copy(update={"model": model})
    (schedule,) = build_retraining_schedule(use_case, Settings())
    fired = trips.at(1, 5, month=4)
    (request,) = schedule(dg.build_schedule_context(scheduled_execution_time=fired))
    assert request.partition_key == "2024-04-01"
    assert request.tags[CAUSE] == "schedule"
    assert request.tags[REASON] == "the schedule '0 5 1 * *' fired"


def test_a_cutoff_is_a_partition_as_soon_as_it_has_begun(world: World) -> None:
    today = f"{datetime.now(UTC).astimezone(trips.ZONE):%Y-%m-%d}"
    assert cutoffs_of(world.use_case).has_partition_key(today)
    assert not partitions_of(world.use_case).has_partition_key(today)


def test_failures_that_a_refused_challenger_answered_are_not_answered_again(
    world: World, instance: dg.DagsterInstance
) -> None:
    first = world.request(instance)
    assert world.challenge(27) == "refused"
    assert isinstance(world.ask(instance), dg.SkipReason)
    watch(world, 27, 28)
    # Two days failed since then; three are needed.
    assert isinstance(world.ask(instance), dg.SkipReason)
    eager = world.use_case.retrain.model_copy(update={"sustained": "2 of 5"})
    again = World(
        world.use_case.model_copy(update={"retrain": eager}), world.lake, world.registry
    ).request(instance)
    assert again.tags[FAILED] == "2024-03-27, 2024-03-28"
    assert again.run_key != first.run_key
