"""What a schedule asked for once is asked for again where its run was lost."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent
from dagster._core.storage.tags import WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test

from ml_platform.orchestrator.records import WILL_RETRY
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources.private import PARTITION, RANGE_END, RANGE_START
from ml_platform_dagster.resources.ranges import UPKEEP
from ml_platform_dagster.sensors import attempts
from ml_platform_dagster.sensors.attempts import ATTEMPT_OF, RETRIED_BY, tags_of_retried
from ml_platform_dagster.sensors.circumstances import CODE, SNAPSHOT, circumstances_of
from ml_platform_dagster.sensors.retraining import build_retraining_schedule
from ml_platform_dagster.sensors.retries import LOOK_BACK, build_retries, lost_runs
from tests import trips_use_case as trips

pytestmark = pytest.mark.slow

TRAINED = frozenset({dg.AssetKey(["trips", "model"]), dg.AssetKey(["trips", "promotions"])})
STARTED = dg.DagsterRunStatus.STARTED
SUCCESS = dg.DagsterRunStatus.SUCCESS


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as instance:
        yield instance


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setattr(attempts, "FIRST_WAIT", timedelta(0))
    folder = trips.write_folder(tmp_path / "use_cases", "binary").folder
    spec = (folder / "use_case.yaml").read_text()
    (folder / "use_case.yaml").write_text(
        spec.replace("model: {", 'model: {schedule: "0 5 1 * *", ', 1)
        + "retrain: {on: [schedule]}\n"
    )
    return trips.load_use_case(folder)


def scheduled(use_case: UseCase, month: int = 4) -> dg.RunRequest:
    (schedule,) = build_retraining_schedule(use_case, Settings())
    fired = trips.at(1, 5, month=month)
    (request,) = schedule(dg.build_schedule_context(scheduled_execution_time=fired))
    return request


def launch(
    instance: dg.DagsterInstance,
    request: dg.RunRequest,
    status: dg.DagsterRunStatus = dg.DagsterRunStatus.NOT_STARTED,
) -> dg.DagsterRun:
    """A run of a request, as the daemon creates it."""
    tags = dict(request.tags)
    if request.partition_key:
        tags[PARTITION] = request.partition_key
    keys = frozenset(request.asset_selection or ())
    return create_run_for_test(instance, status=status, asset_selection=keys, tags=tags)


def never_started(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.DagsterRun:
    run = launch(instance, request)
    instance.report_run_failed(run, "the code server did not answer")
    return run


def ask(use_case: UseCase, instance: dg.DagsterInstance) -> dg.SensorResult:
    (sensor,) = build_retries(use_case, Settings())
    with dg.build_sensor_context(instance, sensor_name=sensor.name) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(use_case: UseCase, instance: dg.DagsterInstance) -> list[dg.RunRequest]:
    return list(ask(use_case, instance).run_requests or ())


def why(use_case: UseCase, instance: dg.DagsterInstance) -> str:
    result = ask(use_case, instance)
    assert not result.run_requests
    assert isinstance(result.skip_reason, dg.SkipReason)
    return str(result.skip_reason.skip_message)


def test_a_training_of_the_schedule_that_never_started_is_asked_for_again(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    assert why(use_case, instance) == "no run is lost"
    request = scheduled(use_case)
    never_started(instance, request)
    (again,) = asked(use_case, instance)
    assert frozenset(again.asset_selection or ()) == TRAINED
    assert again.tags == {**request.tags, PARTITION: "2024-04-01"}
    second = launch(instance, again)
    assert why(use_case, instance) == f"run {second.run_id} is under way (NOT_STARTED)"
    instance.report_run_failed(second, "nor this time")
    (third,) = asked(use_case, instance)
    assert third.run_key != again.run_key
    launch(instance, third, SUCCESS)
    assert why(use_case, instance) == "no run is lost"


def test_dagster_takes_the_request_for_one_of_the_sensors_own_assets(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    never_started(instance, scheduled(use_case))
    definitions = build_definitions(Settings())
    repository = definitions.get_repository_def()
    sensor = repository.get_sensor_def("trips_retries")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with dg.build_sensor_context(
        instance, sensor_name=sensor.name, repository_def=repository
    ) as context:
        (request,) = sensor.evaluate_tick(context).run_requests or ()
    assert request.tags[PARTITION] == "2024-04-01"
    assert frozenset(request.asset_selection or ()) == TRAINED
    assert repository.has_job(str(request.job_name))


def test_each_attempt_waits_longer(
    use_case: UseCase, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempts, "FIRST_WAIT", timedelta(hours=1))
    run = never_started(instance, scheduled(use_case))
    assert why(use_case, instance).startswith(f"attempt 1, run {run.run_id}, failed at ")


def test_what_a_later_training_has_made_up_for_is_never_asked_for_again(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    never_started(instance, scheduled(use_case))
    create_run_for_test(instance, status=SUCCESS, asset_selection=TRAINED)
    assert why(use_case, instance) == "no run is lost"
    # Also when that run is not among the newest any more, or was deleted.
    for run in instance.get_runs(dg.RunsFilter(statuses=[SUCCESS])):
        instance.delete_run(run.run_id)
    assert why(use_case, instance) == "no run is lost"


def test_of_two_lost_trainings_the_later_one_is_asked_for(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    never_started(instance, scheduled(use_case, month=4))
    never_started(instance, scheduled(use_case, month=5))
    (request,) = asked(use_case, instance)
    assert request.tags[PARTITION] == "2024-05-01"


def test_nothing_is_asked_for_while_another_run_trains(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    never_started(instance, scheduled(use_case))
    other = create_run_for_test(instance, status=STARTED, asset_selection=TRAINED)
    assert why(use_case, instance) == f"run {other.run_id} is under way (STARTED)"


def test_what_a_person_has_ended_is_left(use_case: UseCase, instance: dg.DagsterInstance) -> None:
    never_started(instance, scheduled(use_case))
    (again,) = asked(use_case, instance)
    instance.report_run_canceled(launch(instance, again))
    assert why(use_case, instance) == "no run is lost"
    assert why(use_case, instance) == "no run is lost"


def test_a_part_of_a_rollback_is_asked_for_until_it_is_covered(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    keys = [dg.AssetKey(["trips", table]) for table in ("predictions", "drift_report")]
    tags = tags_of_retried(use_case, "2024-03-05", "trips_rollback")
    days = {RANGE_START: "2024-03-05", RANGE_END: "2024-03-09"}
    request = dg.RunRequest(asset_selection=keys, tags={**tags, **days, "dagster/x": "y"})
    never_started(instance, request)
    launch(instance, dg.RunRequest(asset_selection=keys[:1], tags=days), SUCCESS)
    (again,) = asked(use_case, instance)
    assert set(again.asset_selection or ()) == set(keys)
    assert again.tags == {**tags, **days}
    more = {RANGE_START: "2024-03-04", RANGE_END: "2024-03-09"}
    launch(instance, dg.RunRequest(asset_selection=keys, tags=more), SUCCESS)
    assert why(use_case, instance) == "no run is lost"


def test_runs_of_others_and_old_ones_are_no_matter(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    request = scheduled(use_case)
    never_started(instance, request)
    other = {**request.tags, RETRIED_BY: "parcels_retries"}
    never_started(instance, request.with_replaced_attrs(tags=other))
    never_started(instance, request.with_replaced_attrs(tags={ATTEMPT_OF: "trips_landing/key"}))
    now = datetime.now(UTC)
    assert len(lost_runs(instance, use_case, now)) == 1
    assert lost_runs(instance, use_case, now + LOOK_BACK) == []


def test_a_run_of_the_catch_up_that_never_started_is_no_attempt_at_its_partitions(
    use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    tags = {
        UPKEEP: "trips", SNAPSHOT: "3", CODE: use_case.code_version,
        RANGE_START: "2024-03-05", RANGE_END: "2024-03-05",
    }  # fmt: skip
    request = dg.RunRequest(asset_selection=[dg.AssetKey(["trips", "labels"])], tags=tags)
    never_started(instance, request)
    repository = build_definitions(Settings()).get_repository_def()
    context = dg.build_schedule_context(instance, repository_def=repository)
    assert circumstances_of(context, use_case).attempts == []
    run = launch(instance, request, dg.DagsterRunStatus.STARTING)
    instance.handle_new_event(started(run))
    instance.report_run_failed(run)
    (attempt,) = circumstances_of(context, use_case).attempts
    assert attempt.tables == {"labels"}


def started(run: dg.DagsterRun) -> dg.EventLogEntry:
    """What the process of a run reports at first."""
    kind = dg.DagsterEventType.RUN_START
    return dg.EventLogEntry(
        error_info=None, user_message="", level="INFO", run_id=run.run_id, job_name=run.job_name,
        timestamp=datetime.now(UTC).timestamp(),
        dagster_event=DagsterEvent(kind.value, run.job_name),
    )  # fmt: skip


def test_dagsters_own_name_of_a_run_that_it_tries_again() -> None:
    assert WILL_RETRY == WILL_RETRY_TAG
