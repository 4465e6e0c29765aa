"""MLflow's client, opened without touching MLflow's global state."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ml_platform.errors import PlatformError, RegistryError, RegistryUnavailable
from ml_platform.failures import failure_of, is_of_a_store, is_refused
from ml_platform.registry.database import open_database
from ml_platform.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

SQLITE = "sqlite:///"
UNANSWERED = "API request to"
"""How MLflow's client begins to say that its server does not answer."""
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
    # It logs what it raises, with a traceback; whoever asks handles that.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    uri = settings.tracking_uri
    return open_database(Path(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else _client(uri)


def _client(uri: str) -> "MlflowClient":
    from mlflow import MlflowClient

    # Tables are created as soon as there is a client, those of the registry by its first call.
    try:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)
    except ModuleNotFoundError as error:
        kind = uri.partition(":")[0]
        hint = "pip install .[postgres]" if kind == "postgresql" else f"pip install {error.name}"
        raise RegistryError(
            f"MLflow's database ({kind}) needs the Python package {error.name}: {hint}"
        ) from error
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


def end_left_behind(client: "MlflowClient", experiment: str, tags: Mapping[str, str]) -> None:
    """Mark runs as failed that carry these tags and still count as running.

    Whoever made them has died, or lost MLflow on the way: nobody registers the same thing twice at
    once on purpose, and where it happens the other run is only marked, not hindered.
    """
    wanted = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    running = f"{wanted} and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment], filter_string=running):
        client.set_terminated(run.info.run_id, status="FAILED")


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
def answering(settings: Settings) -> Iterator[None]:
    """Raise RegistryUnavailable where MLflow, or what it keeps things in, does not answer.

    MLflow's client has asked its server again by then, for about two minutes unless
    `MLFLOW_HTTP_REQUEST_MAX_RETRIES` says otherwise. Raises RegistryError for what else MLflow, its
    database or its artifact store raises, in one line and without passwords.
    """
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        unanswered = str(error).startswith(UNANSWERED) and not is_refused(error)
        failure = failure_of(error, settings)
        if unanswered or failure.kind == "unavailable":
            # What stands before an @ may be a password.
            address = settings.tracking_uri.rpartition("@")[2]
            said = "" if unanswered else f" ({failure})"
            raise RegistryUnavailable(
                f"MLflow does not answer at {address}{said}; start it, or say where it is with "
                "ML_PLATFORM_MLFLOW_TRACKING_URI",
                is_final=unanswered,
            ) from None
        if failure.kind == "disk full" or is_of_a_store(error):
            raise RegistryError(f"MLflow failed: {failure}") from None
        raise
