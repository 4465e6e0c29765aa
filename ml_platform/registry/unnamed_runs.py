"""Runs of MLflow that no model version names: their training failed, or it was deleted."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING

from ml_platform.registry.models import FINGERPRINT
from ml_platform.registry.tracking import answering, open_client
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase

if TYPE_CHECKING:
    from mlflow import MlflowClient

ENDED = "attributes.status != 'RUNNING' and attributes.status != 'SCHEDULED'"


def unnamed_runs(
    settings: Settings, use_cases: Iterable[UseCase], older_than: datetime
) -> tuple[str, ...]:
    """Ids of runs of use cases that ended before a moment and that no version names.

    Runs that others recorded in the experiment of a use case do not count. Raises
    RegistryUnavailable.
    """
    with answering(settings):
        client = open_client(settings)
        return tuple(
            run_id for case in use_cases for run_id in _of_case(client, case.name, older_than)
        )


def delete_runs(settings: Settings, runs: Iterable[str]) -> None:
    """Delete runs as MLflow does: `mlflow gc` frees what they hold, until then they come back."""
    with answering(settings):
        client = open_client(settings)
        for run_id in runs:
            client.delete_run(run_id)


def _of_case(client: "MlflowClient", name: str, older_than: datetime) -> Iterator[str]:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return
    named = _named(client, name)
    # MLflow's API counts milliseconds.
    until, token = int(older_than.timestamp() * 1000), None
    while token != "":
        page = client.search_runs([experiment.experiment_id], ENDED, page_token=token)
        for run in page:
            ended = run.info.end_time
            is_ours = FINGERPRINT in run.data.tags
            if is_ours and ended and ended < until and run.info.run_id not in named:
                yield run.info.run_id
        token = page.token or ""


def _named(client: "MlflowClient", name: str) -> frozenset[str]:
    found: set[str] = set()
    token: str | None = None
    while token != "":
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        found |= {str(entry.run_id) for entry in page}
        token = page.token or ""
    return frozenset(found)
