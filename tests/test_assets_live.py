"""A use case that logs its requests: its assets, materialised by Dagster in process."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_platform_dagster.assets.features import build_features
from ml_platform_dagster.assets.monitoring import build_monitoring
from ml_platform_dagster.assets.sources import build_sources
from ml_platform_dagster.resources import LakeResource, OnlineStoreResource, RegistryResource
from tests.served import LOGGED, Deployment, declare, deploy, published, rows_of


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    made = declare(deploy(tmp_path_factory.mktemp("live")), LOGGED)
    made.promote(20)
    published(made)
    yield made
    made.lake.close()


@pytest.mark.slow
def test_requests_become_reports_with_checks(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_DATA", str(deployment.settings.data))
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(deployment.settings.use_cases))
    with deployment.client() as client:
        row = rows_of(29)[0]
        (said,) = client.post("/predict/trips", json={"rows": [row]}).json()["predictions"]
        client.post("/predict/trips", json={"rows": rows_of(29)[1:]})
        item = {"prediction_id": said["id"], "label": True}
        assert client.post("/feedback/trips", json={"items": [item]}).status_code == 202
    case, settings = deployment.use_case, deployment.settings
    built = [
        asset
        for build in (build_sources, build_features, build_monitoring)
        for asset in build(case, settings)
    ]
    wanted = [
        dg.AssetKey(["trips", name])
        for name in (
            "requests",
            "feedback",
            "labels",
            "live_drift_report",
            "live_performance_report",
        )
    ]
    result = dg.materialize(
        built,
        selection=dg.AssetSelection.assets(*wanted),
        partition_key="2024-03-29",
        resources={
            "lake": LakeResource(),
            "online_store": OnlineStoreResource(),
            "registry": RegistryResource(),
        },
    )
    assert result.success
    passed = {
        (check.asset_key.path[-1], check.check_name): check.passed
        for check in result.get_asset_check_evaluations()
    }
    assert passed["requests", "landed_is_ingested_or_quarantined"]
    assert passed["labels", "feedback_agrees"]
    assert passed["live_performance_report", "online_features_equal_the_join"]
    (performance,) = result.asset_materializations_for_node("trips__live_performance_report")
    assert performance.metadata["labelled"].value == 40
    assert Path(settings.landing_uri).is_dir()
