"""Publications as assets, run by Dagster itself: lineage, and a check of each partition."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import pytest

from ml_platform.settings import Settings
from ml_platform_dagster.assets.publishing import COMPLETE
from ml_platform_dagster.definitions import build_definitions
from ml_platform_dagster.resources import range_tags
from tests.database_servers import Database, sqlite_database
from tests.published_trips import COLUMNS, Published, published_trips

KEY = dg.AssetKey(["trips", "published_late_trips"])


@dataclass(frozen=True)
class Location:
    trips: Published
    instance: dg.DagsterInstance
    definitions: dg.Definitions

    def run(self, first: str, last: str, key: dg.AssetKey = KEY) -> dg.ExecuteInProcessResult:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            instance=self.instance, asset_selection=[key], tags=range_tags([first, last]),
            raise_on_error=False,
        )  # fmt: skip

    @property
    def spec(self) -> dg.AssetSpec:
        return next(s for s in self.definitions.resolve_all_asset_specs() if s.key == KEY)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return sqlite_database(tmp_path_factory.mktemp("others") / "others.sqlite")


@pytest.fixture(scope="module")
def location(database: Database, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Location]:
    trips = published_trips(tmp_path_factory.mktemp("published"), database)
    use_case = trips.declared(
        {
            "late_trips": {"table": "others.late_trips", "columns": COLUMNS},
            "paces": {"table": "others.paces", "features": "pace"},
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ML_PLATFORM_DATA", str(trips.root / "data"))
        patch.setenv("ML_PLATFORM_USE_CASES", str(use_case.folder.parent))
        patch.setenv("ML_PLATFORM_DATABASES", json.dumps({"others": database.setting}))
        with dg.instance_for_test() as instance:
            yield Location(trips, instance, build_definitions(Settings()))
    trips.lake.close()


def test_the_asset_says_where_it_is_and_what_its_columns_come_from(location):
    metadata = location.spec.metadata
    assert metadata["dagster/table_name"] == "others.late_trips"
    assert location.spec.kinds == {"sqlite"}
    columns = metadata["dagster/column_lineage"].deps_by_column
    found = {
        name: [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps]
        for name, deps in columns.items()
    }
    assert found["is_late"] == [("trips/predictions", "probability")]
    assert found["city"] == [("trips/trips", "city")]
    deps = {dep.asset_key.to_user_string() for dep in location.spec.deps}
    assert deps == {"trips/predictions", "trips/trips"}


def test_the_asset_of_published_features_depends_on_them_alone(location):
    key = dg.AssetKey(["trips", "published_paces"])
    (spec,) = (s for s in location.definitions.resolve_all_asset_specs() if s.key == key)
    assert {dep.asset_key.to_user_string() for dep in spec.deps} == {"trips/pace_features"}
    columns = spec.metadata["dagster/column_lineage"].deps_by_column
    assert [(d.asset_key.to_user_string(), d.column_name) for d in columns["pace"]] == [
        ("trips/pace_features", "pace")
    ]
    assert location.run("2024-03-09", "2024-03-11", key).success
    ((count,),) = location.trips.database.run("SELECT count(*) FROM paces")
    assert count == 120


def test_each_partition_of_a_run_is_materialized_and_checked(location):
    assert location.run("2024-03-09", "2024-03-11").success
    partitions = location.instance.get_materialized_partitions(KEY)
    assert partitions == {"2024-03-09", "2024-03-10", "2024-03-11"}
    ((count,),) = location.trips.database.run("SELECT count(*) FROM late_trips")
    assert count == 120
    (check,) = location.instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(KEY, COMPLETE), limit=1
    )
    evaluation = check.event.dagster_event.event_specific_data
    assert evaluation.passed
    assert evaluation.metadata["partitions judged"].value == 3


def test_a_partition_without_predictions_is_said_to_be_one(location):
    result = location.run("2024-03-02", "2024-03-02")
    assert not result.success
    said = result.get_step_failure_events()[0].event_specific_data.error.cause
    assert "has no predictions in" in said.message


def test_steps_that_load_the_same_database_or_train_are_in_a_pool(location: Location) -> None:
    job = location.definitions.resolve_implicit_global_asset_job_def()
    pools = {node.name: node.definition.pool for node in job.graph.nodes}
    assert {name: pool for name, pool in pools.items() if pool} == {
        "trips__model": "training",
        "trips__published_late_trips": "database_others",
        "trips__published_paces": "database_others",
    }
