import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from ml_platform.errors import (
    EnvironmentDiffers,
    ModelNotFound,
    ModelOutdated,
    ModelRefused,
    RegistryError,
)
from ml_platform.registry import Registry, TrainedModel, TrainedVersion, predict
from ml_platform.registry.tracking import ensure_registered_model, experiment_id, open_client
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from tests.changed_facts import change_facts
from tests.dagster_servers import ROOT
from tests.trips_use_case import at, settings, write_folder

OPEN = (
    "from ml_platform.registry.tracking import open_client; "
    "from ml_platform.settings import Settings; open_client(Settings())"
)

ROWS = pd.DataFrame({"distance": [1.0, 2.0, 3.0, 4.0], "label": [False, False, True, True]}).assign(
    probability=[0.1, 0.2, 0.8, 0.9]
)


def trained(**changes) -> TrainedModel:
    estimator = LogisticRegression().fit(ROWS[["distance"]], ROWS["label"].astype(int))
    fields = {
        "estimator": estimator,
        "columns": {"distance": "DOUBLE"},
        "classes": ("0", "1"),
        "cutoff": at(20),
        "snapshot": 7,
        "trained_from": at(1),
        "trained_until": at(15),
        "fingerprint": "abc",
        "metrics": {"holdout_roc_auc": 0.1 + 0.2, "rows_fitted": 4.0},
        "importances": {"distance": 0.5},
        "reference": ROWS,
        "plots": {"roc": b"\x89PNG"},
        "parameters": {"estimator.C": "1.0"},
    }
    return TrainedModel(**{**fields, **changes})


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def use_case(root):
    return write_folder(root, "binary")


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
)
def kept(request, root):
    """Settings of each database that MLflow may keep things in."""
    if request.param == "sqlite":
        return settings(root)
    server = request.getfixturevalue("postgres")
    server.psql("CREATE DATABASE mlflow;")
    files = str(root / "artifacts")
    return Settings(
        data=root / "data", mlflow_tracking_uri=server.get_uri("mlflow"), mlflow_artifacts=files
    )


@pytest.fixture(scope="module")
def registry(kept):
    return Registry(kept)


@pytest.fixture(scope="module")
def version(registry, use_case):
    return registry.register(use_case, trained(), tags={"git.dirty": "false"})


def changed_copy(registry, use_case, file, content):
    version = registry.register(use_case, trained(fingerprint=file), tags={})
    source = registry._client.get_model_version(use_case.name, str(version)).source
    Path(source.removeprefix("file://"), file).write_bytes(content)
    return version


def test_a_version_comes_back_as_it_was_registered(registry, kept, use_case, version):
    for model in (
        registry.load(use_case, version),
        Registry(kept).load(use_case, version),
    ):
        given = trained()
        for name in ("cutoff", "snapshot", "trained_from", "trained_until", "classes", "columns"):
            assert getattr(model, name) == getattr(given, name)
        assert model.metrics == given.metrics
        assert model.importances == given.importances
        assert (model.use_case, model.version) == ("trips", version)
        pd.testing.assert_frame_equal(model.reference, ROWS)
        expected = given.estimator.predict_proba(ROWS[["distance"]])[:, 1]
        assert predict(use_case, model, ROWS)["probability"].tolist() == expected.tolist()


def test_a_version_is_loaded_once(registry, use_case, version):
    assert registry.load(use_case, version) is registry.load(use_case, version)


def test_a_version_that_does_not_exist_is_not_found(registry, use_case):
    with pytest.raises(ModelNotFound, match="trips has no model version 999"):
        registry.load(use_case, 999)


@pytest.mark.parametrize("file", ["model.pkl", "reference.parquet", "model_version.json"])
def test_a_file_that_was_changed_is_refused_before_it_is_read(registry, use_case, file):
    version = changed_copy(registry, use_case, file, b"cos\nabort\n(tR.")
    with pytest.raises(ModelRefused, match=f"trips version {version}: {file} has digest"):
        registry.load(use_case, version)


def with_facts(
    registry: Registry, use_case: UseCase, name: str, change: Callable[[dict[str, Any]], object]
) -> int:
    """A version with other facts than were registered, and with their digest."""
    version = registry.register(use_case, trained(fingerprint=name), tags={})
    change_facts(registry, use_case, version, change)
    return version


def test_a_version_that_older_code_registered_says_what_it_lacks(registry, use_case):
    def lacks(facts: dict[str, Any]) -> None:
        del facts["seen"], facts["importances"]

    version = with_facts(registry, use_case, "older", lacks)
    with pytest.raises(ModelOutdated, match=f"trips version {version} lacks importances, seen in"):
        registry.load(use_case, version)


@pytest.mark.parametrize("decisive", ["scikit-learn", "python"])
def test_a_version_of_another_environment_is_refused_where_that_matters(
    registry, use_case, decisive
):
    def older(facts: dict[str, Any]) -> None:
        facts["environment"] = [
            f"{decisive}==1.2.3" if each.startswith(f"{decisive}==") else each
            for each in facts["environment"]
        ]

    version = with_facts(registry, use_case, f"of {decisive}", older)
    said = rf"trips version {version} was trained with {decisive} 1\.2\.3, here is \d"
    with pytest.raises(EnvironmentDiffers, match=said):
        registry.load(use_case, version)


def test_other_differences_of_the_environment_are_said(registry, use_case, caplog):
    def other(facts: dict[str, Any]) -> None:
        facts["environment"] = ["pandas==0.1", "nowhere==2.0"]

    version = with_facts(registry, use_case, "moved", other)
    assert registry.load(use_case, version).version == version
    (said,) = [r.getMessage() for r in caplog.records if r.name.startswith("ml_platform")]
    assert said == (
        f"trips version {version} was trained in another environment: "
        f"pandas {pd.__version__} instead of 0.1, nowhere is missing instead of 2.0"
    )


def test_a_version_that_was_registered_by_others_is_refused(registry, use_case, version):
    client = registry._client
    source = client.get_model_version(use_case.name, str(version)).source
    other = client.create_model_version(use_case.name, source)
    with pytest.raises(ModelRefused, match="none was recorded"):
        registry.load(use_case, int(other.version))


def test_a_version_is_found_by_what_it_was_made_from(registry, use_case, version):
    assert registry.find(use_case, "abc") == version
    assert registry.find(use_case, "other") is None


def test_what_it_was_made_from_is_recorded(registry, use_case, version):
    tags = registry.tags(use_case, version)
    assert tags["git.dirty"] == "false"
    assert tags["code_version"] == use_case.code_version
    assert tags["snapshot"] == "7"
    assert registry.plots(use_case, version) == {"roc": b"\x89PNG"}
    made = registry.load(use_case, version)
    (noted,) = (each for each in registry.trained(use_case) if each.version == version)
    assert noted == TrainedVersion(version, made.cutoff, made.snapshot, made.trained_from)
    client = registry._client
    run = client.get_run(registry.load(use_case, version).run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"estimator.C": "1.0"}
    assert run.data.metrics == trained().metrics
    stored = {item.path for item in client.list_artifacts(run.info.run_id, "use_case")}
    assert stored == {
        f"use_case/{name}"
        for name in ("features", "labels.sql", "model.py", "resolved.json", "use_case.yaml")
    }
    local = Path(client.download_artifacts(run.info.run_id, "use_case"))
    assert json.loads((local / "resolved.json").read_text())["model"]["holdout"] == "5d"
    assert "distance / 60" in (local / "features" / "pace.sql").read_text()


def test_mlflow_can_load_it_with_its_signature_and_example(registry, kept, use_case, version):
    registry.set_alias(use_case, "champion", version)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(kept.tracking_uri)
    try:
        model = mlflow.pyfunc.load_model("models:/trips@champion")
    finally:
        mlflow.set_tracking_uri(before)
    assert model.metadata.get_input_schema().input_names() == ["distance"]
    assert model.input_example.shape == (4, 1)
    expected = trained().estimator.predict_proba(ROWS[["distance"]])
    assert np.array_equal(model.predict(ROWS[["distance"]]), expected)


def test_a_registration_that_fails_leaves_a_failed_run_and_no_version(registry, use_case):
    with pytest.raises(TypeError):
        registry.register(use_case, trained(metrics={"rows": object()}, fingerprint="x"), tags={})
    assert registry.find(use_case, "x") is None
    experiment = registry._client.get_experiment_by_name("trips").experiment_id
    newest = registry._client.search_runs([experiment], max_results=1)[0]
    assert newest.info.status == "FAILED"


def test_mlflow_has_no_active_run_and_leaves_the_working_directory_alone(version):
    assert mlflow.active_run() is None
    assert not {"mlruns", "mlflow.db"} & {file.name for file in Path.cwd().iterdir()}


def open_new(data: Path) -> str:
    client = open_client(Settings(data=data))
    ensure_registered_model(client, "trips", "")
    return experiment_id(client, Settings(data=data), "trips")


# Forked, because a new interpreter takes seconds to import mlflow.
@pytest.mark.filterwarnings("ignore:.*use of fork.. may lead to deadlocks:DeprecationWarning")
@pytest.mark.slow
def test_processes_that_open_a_new_registry_side_by_side_share_one(tmp_path):
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as processes:
        assert set(processes.map(open_new, [tmp_path] * 4)) == {"1"}


@pytest.mark.slow
@pytest.mark.parametrize("tables", [1, 20])
def test_tables_in_postgresql_whose_maker_was_killed_are_made_by_the_next(
    postgres, tmp_path, tables
):
    database = f"killed_{tables}"
    postgres.psql(f"CREATE DATABASE {database};")
    uri = postgres.get_uri(database)
    environment = {
        **os.environ,
        "ML_PLATFORM_DATA": str(tmp_path),
        "ML_PLATFORM_MLFLOW_TRACKING_URI": uri,
    }
    maker = subprocess.Popen([sys.executable, "-c", OPEN], cwd=ROOT, env=environment)
    deadline = time.monotonic() + 120
    while made_in(uri) < tables:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    maker.send_signal(signal.SIGKILL)
    maker.wait()
    client = open_client(Settings(data=tmp_path, mlflow_tracking_uri=uri))
    ensure_registered_model(client, "trips", "")
    assert client.get_registered_model("trips").name == "trips"


def made_in(uri: str) -> int:
    import psycopg

    with psycopg.connect(uri) as connection:
        query = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        return connection.execute(query).fetchone()[0]


def test_a_database_whose_driver_is_not_installed_is_reported_in_one_line(tmp_path):
    lacking = Settings(data=tmp_path, mlflow_tracking_uri="mysql+aiomysql://ada:secret@localhost/m")
    with pytest.raises(RegistryError) as error:
        open_client(lacking)
    assert str(error.value) == (
        "MLflow's database (mysql+aiomysql) needs the Python package aiomysql: pip install aiomysql"
    )
