"""What is asked for without a person: the newest window scored, what was left behind caught up."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.backfill.local_run import compute
from ml_platform.backfill.upkeep import Circumstances, FailedAttempt, catch_up
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from ml_platform_dagster.definitions import build_definitions
from tests import trips_use_case as trips
from tests.dagster_servers import land_trips

pytestmark = pytest.mark.slow

NOW = trips.at(11, 1)
TABLES = ("pace_features", "labels")


@pytest.fixture
def use_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> UseCase:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    return trips.write_folder(tmp_path / "use_cases", "binary")


@pytest.fixture
def lake(use_case: UseCase) -> Iterator[Lake]:
    found = Lake(Settings())
    yield found
    found.close()


def ingested(lake: Lake, use_case: UseCase, first: int, last: int, seed: int = 0) -> None:
    land_trips(Settings().data, first, last, seed)
    make(lake, use_case, trips.days(first, last), "trips")


def make(lake: Lake, use_case: UseCase, window_range: Window, *tables: str) -> None:
    for table in tables:
        compute(lake, Registry(lake.settings), use_case, table, window_range, "test")


def asked(
    lake: Lake, use_case: UseCase, circumstances: Circumstances | None = None, budget: int = 500
) -> list[tuple[str, str, tuple[str, ...]]]:
    schedules = use_case.schedules.model_copy(update={"budget": budget})
    thrifty = use_case.model_copy(update={"schedules": schedules})
    found = catch_up(lake, thrifty, NOW, circumstances or Circumstances())
    return [
        (*(key[-2:] for key in chunk.keys(use_case.calendar)), tuple(sorted(chunk.tables)))
        for chunk in found
    ]


def day(number: int, use_case: UseCase) -> Window:
    return use_case.calendar.window_at(trips.at(number))


def test_all_that_is_left_behind_is_one_run_where_the_budget_allows(
    lake: Lake, use_case: UseCase
) -> None:
    ingested(lake, use_case, 1, 10)
    assert asked(lake, use_case) == [("01", "10", ("labels", "pace_features"))]
    make(lake, use_case, trips.days(1, 10), *TABLES)
    assert asked(lake, use_case) == []


def test_the_newest_partitions_come_first_and_the_budget_is_kept(
    lake: Lake, use_case: UseCase
) -> None:
    ingested(lake, use_case, 1, 10)
    assert asked(lake, use_case, budget=6) == [("08", "10", ("labels", "pace_features"))]
    make(lake, use_case, trips.days(8, 10), *TABLES)
    assert asked(lake, use_case, budget=6) == [("05", "07", ("labels", "pace_features"))]


def test_what_is_not_complete_or_beyond_the_horizon_is_left_alone(
    lake: Lake, use_case: UseCase
) -> None:
    ingested(lake, use_case, 1, 12)
    schedules = use_case.schedules.model_copy(update={"horizon": use_case.features["pace"].ttl})
    near = use_case.model_copy(update={"schedules": schedules})
    assert asked(lake, near) == [("10", "10", ("labels", "pace_features"))]


def test_what_is_under_way_is_not_asked_for_again(lake: Lake, use_case: UseCase) -> None:
    ingested(lake, use_case, 1, 10)
    windows = {day(number, use_case) for number in range(9, 11)}
    busy = Circumstances(under_way=dict.fromkeys(TABLES, windows))
    assert asked(lake, use_case, busy) == [("01", "08", ("labels", "pace_features"))]


def test_what_failed_twice_is_asked_for_again_when_its_inputs_or_its_code_change(
    lake: Lake, use_case: UseCase
) -> None:
    ingested(lake, use_case, 1, 10)
    make(lake, use_case, trips.days(1, 10), "labels")
    with lake.cursor() as cursor:
        snapshot = lake.snapshot(cursor)
    features = frozenset({"pace_features"})
    attempt = FailedAttempt(features, trips.days(1, 10), snapshot, use_case.code_version)
    assert asked(lake, use_case, Circumstances(attempts=[attempt]))
    twice = Circumstances(attempts=[attempt, attempt])
    assert asked(lake, use_case, twice) == []
    ingested(lake, use_case, 4, 4, seed=1)
    # The fifth sees the fourth; labels of the third look ahead to it.
    assert asked(lake, use_case, twice) == [("03", "05", ("labels", "pace_features"))]
    query = use_case.folder / "features" / "pace.sql"
    query.write_text(query.read_text() + "-- in other words\n")
    repaired = load_use_case(use_case.folder)
    assert asked(lake, repaired, twice) == [("01", "10", ("labels", "pace_features"))]


def test_what_is_computed_from_a_table_whose_check_failed_waits(
    lake: Lake, use_case: UseCase
) -> None:
    ingested(lake, use_case, 1, 10)
    assert asked(lake, use_case, Circumstances(held={"trips"})) == []


def test_partitions_wait_for_those_they_are_computed_from(lake: Lake, use_case: UseCase) -> None:
    ingested(lake, use_case, 1, 10)
    make(lake, use_case, trips.days(1, 10), "labels")
    trained(lake, use_case)
    # Predictions of a day see the features of the day before, too.
    assert asked(lake, use_case, budget=4) == [("09", "10", ("pace_features",))]
    make(lake, use_case, trips.days(9, 10), "pace_features")
    assert asked(lake, use_case, budget=4) == [("10", "10", ("performance_report", "predictions"))]


def trained(lake: Lake, use_case: UseCase) -> None:
    import kept_models

    models = kept_models.KeptModels()
    make(lake, use_case, trips.days(1, 2), "pace_features")
    version = models.train(lake, use_case, trips.days(1, 2))
    kept_models.promote(lake, use_case, version, trips.at(3))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as found:
        yield found


def tick(
    instance: dg.DagsterInstance, name: str, moment: datetime
) -> list[dg.RunRequest] | dg.SkipReason:
    definitions = build_definitions(Settings())
    repository = definitions.get_repository_def()
    schedule = repository.get_schedule_def(f"trips_{name}")
    with dg.build_schedule_context(
        instance=instance,
        scheduled_execution_time=moment,
        repository_def=repository,
        resources={"lake": definitions.resources["lake"]} if definitions.resources else {},
    ) as context:
        data = schedule.evaluate_tick(context)
    return list(data.run_requests or []) or dg.SkipReason(data.skip_message)


def execute(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    job = build_definitions(Settings()).resolve_implicit_global_asset_job_def()
    return job.execute_in_process(
        instance=instance,
        asset_selection=list(request.asset_selection or ()),
        tags=dict(request.tags),
        raise_on_error=False,
    )


def test_the_schedule_catches_up_in_one_run_and_is_then_content(
    lake: Lake, use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    ingested(lake, use_case, 1, 3)
    (request,) = tick(instance, "catch_up", NOW)
    assert request.run_config == {"execution": {"config": {"in_process": {}}}}
    assert execute(instance, request).success
    assert isinstance(tick(instance, "catch_up", NOW + timedelta(minutes=30)), dg.SkipReason)


@pytest.mark.exhaustive
def test_a_run_that_keeps_failing_is_tried_twice(
    lake: Lake, use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    ingested(lake, use_case, 1, 3)
    make(lake, use_case, trips.days(1, 10), "labels")
    query = use_case.folder / "features" / "pace.sql"
    query.write_text(query.read_text().replace("distance / 60", "CAST('x' || trip AS DOUBLE)"))
    for _ in range(2):
        (request,) = tick(instance, "catch_up", NOW)
        assert not execute(instance, request).success
    assert isinstance(tick(instance, "catch_up", NOW), dg.SkipReason)
    query.write_text(query.read_text().replace("CAST('x' || trip AS DOUBLE)", "distance / 60"))
    (request,) = tick(instance, "catch_up", NOW)
    assert execute(instance, request).success


def test_the_newest_window_is_scored_when_it_can_be_and_once(
    lake: Lake, use_case: UseCase, instance: dg.DagsterInstance
) -> None:
    def why() -> str:
        found = tick(instance, "scoring", NOW)
        assert isinstance(found, dg.SkipReason)
        return str(found.skip_message)

    assert why() == "2024-03-10 cannot be scored: no champion yet"
    ingested(lake, use_case, 1, 9)
    make(lake, use_case, trips.days(1, 9), *TABLES)
    trained(lake, use_case)
    assert why() == "2024-03-10 cannot be scored: trips has no rows"
    ingested(lake, use_case, 10, 10)
    (request,) = tick(instance, "scoring", NOW)
    assert {key.path[-1] for key in request.asset_selection or ()} == {
        "pace_features", "predictions",
    }  # fmt: skip
    assert request.tags["dagster/asset_partition_range_start"] == "2024-03-10"


RETRAINING = [
    # 2:30 does not exist on 10 March: it fires when the clocks have moved on.
    ("30 2 * * *", trips.at(9), 3, ["2024-03-09", "2024-03-10", "2024-03-11"]),
    # 1:30 comes twice on 3 November.
    ("30 1 * * *", trips.at(2, month=11), 3, ["2024-11-02", "2024-11-03", "2024-11-04"]),
    ("0 5 1 * *", trips.at(2), 3, ["2024-04-01", "2024-05-01", "2024-06-01"]),
    ("30 1 3 * *", trips.at(4, month=10), 2, ["2024-11-03", "2024-12-03"]),
]


@pytest.mark.parametrize(("cron", "start", "count", "partitions"), RETRAINING)
def test_retraining_fires_once_a_time_right_through_the_clock_changes(
    use_case: UseCase,
    instance: dg.DagsterInstance,
    cron: str,
    start: datetime,
    count: int,
    partitions: list[str],
) -> None:
    from dagster._utils.schedules import schedule_execution_time_iterator

    spec = use_case.folder / "use_case.yaml"
    spec.write_text(
        spec.read_text().replace("metric: roc_auc", f'metric: roc_auc, schedule: "{cron}"')
    )
    ticks = schedule_execution_time_iterator(start.timestamp(), cron, use_case.timezone)
    moments = [next(ticks) for _ in range(count)]
    assert all(one.timestamp() + 20 * 3600 < other.timestamp() for one, other in pairwise(moments))
    requests = [tick(instance, "retraining", moment) for moment in moments]
    assert [r[0].partition_key for r in requests if isinstance(r, list)] == partitions
