"""MLflow's client, opened without touching MLflow's global state."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
ENVIRONMENT = {
    # A bar for each of the few small files of a version would drown every log.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # OpenMP threads that wait for each other spin by default: where other processes keep the cores
    # busy, fitting takes twenty times as long. It is read when scikit-learn is first imported,
    # which happens after a registry has been opened.
    "OMP_WAIT_POLICY": "PASSIVE",
}


def open_client(settings: Settings) -> "MlflowClient":
    """A client of the tracking store and the model registry; creates their database if need be."""
    from mlflow import MlflowClient

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    uri = settings.tracking_uri
    alone = _alone(Path(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else nullcontext()
    with alone:
        # Tables are created as soon as there is a client, those of the registry by its first call.
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)
    return client


def experiment_id(client: "MlflowClient", settings: Settings, use_case: str) -> str:
    """The experiment of a use case, created on first use."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(use_case)
    if found is None:
        root = settings.artifacts_uri
        location = f"{root.rstrip('/')}/{use_case}" if root else None
        try:
            return str(client.create_experiment(use_case, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(use_case)
            assert found is not None
    return str(found.experiment_id)


def ensure_registered_model(client: "MlflowClient", name: str, description: str) -> None:
    """Create the registered model that versions are added to, if it is not there."""
    from mlflow.exceptions import MlflowException

    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        try:
            client.create_registered_model(name, description=description)
        except MlflowException as lost:
            if lost.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


@contextmanager
def _alone(database: Path) -> Iterator[None]:
    # Processes that create MLflow's tables side by side crash each other, so this waits however
    # long the first one takes. The operating system lets go of the lock when its holder dies.
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_name(database.name + ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
