from pathlib import Path

import dagster as dg
import duckdb
import pytest
from dagster_duckdb import DuckDBResource

from ml_platform.settings import Settings
from ml_platform_dagster.resources import LakeResource, RegistryResource
from ml_platform_dagster.resources.registry import DAGSTER_RUN_ID


def test_the_lake_is_a_duckdb_resource_with_the_lake_attached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path))

    @dg.asset
    def count(lake: LakeResource) -> dg.MaterializeResult:
        assert isinstance(lake, DuckDBResource)
        with lake.get_connection() as connection:
            connection.execute("CREATE TABLE lake.main.t AS SELECT 42 AS n")
            (n,) = connection.execute("SELECT n FROM lake.main.t").fetchone()
        return dg.MaterializeResult(metadata={"n": n})

    result = dg.materialize([count], resources={"lake": LakeResource()})
    assert result.asset_materializations_for_node("count")[0].metadata["n"].value == 42


def test_a_connection_is_closed_when_its_body_raises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path))
    kept = []

    def use(lake: LakeResource) -> None:
        with lake.get_connection() as connection:
            kept.append(connection)
            raise RuntimeError("the body failed")

    resource = LakeResource()
    with dg.build_init_resource_context() as context:
        resource.setup_for_execution(context)
        with pytest.raises(RuntimeError, match="the body failed"):
            use(resource)
        with pytest.raises(duckdb.ConnectionException):
            kept[0].execute("SELECT 1")
        resource.teardown_after_execution(context)


def test_the_registry_takes_its_configuration_from_dagster_mlflow() -> None:
    from dagster_mlflow.resources import CONFIG_SCHEMA

    assert RegistryResource.model_fields.keys() <= CONFIG_SCHEMA.keys()


def test_mlflow_runs_carry_the_tag_by_which_dagster_mlflow_finds_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import inspect

    from dagster_mlflow.resources import MlFlow

    assert f'"{DAGSTER_RUN_ID}"' in inspect.getsource(MlFlow._set_all_tags)
    monkeypatch.setenv("IMAGE", "7")
    resource = RegistryResource(env_to_tag=["IMAGE", "ABSENT"], extra_tags={"team": "ops"})
    assert resource.tags("r") == {"IMAGE": "7", "team": "ops", DAGSTER_RUN_ID: "r"}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_PLATFORM_ENCRYPTED", "true")
    monkeypatch.setenv("ML_PLATFORM_EXTENSIONS", "httpfs,azure")
    assert Settings().encrypted
    assert Settings().extensions == ("httpfs", "azure")
