import os
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform_dagster.resources.ticks import tick_settings

DAGSTER_RUN_ID = "dagster_run_id"


class RegistryResource(dg.ConfigurableResource[Any]):
    """The model registry in MLflow, configured with the field names of dagster-mlflow.

    MLflow runs are opened and closed by training itself; docs/dependencies.md says why this does
    not build on dagster-mlflow's own resource, whose tag for finding a Dagster run it keeps.
    """

    mlflow_tracking_uri: str | None = None
    env_to_tag: list[str] = []
    extra_tags: dict[str, str] = {}
    _registry: Registry = PrivateAttr()

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Settings are read here, in the process that runs, not where definitions are loaded."""
        settings = tick_settings() if context.run is None else Settings()
        if self.mlflow_tracking_uri:
            settings = settings.model_copy(update={"mlflow_tracking_uri": self.mlflow_tracking_uri})
        self._registry = Registry(settings)

    @property
    def registry(self) -> Registry:
        return self._registry

    def tags(self, run_id: str) -> dict[str, str]:
        """Tags of an MLflow run that belongs to a Dagster run."""
        environment = {name: os.environ[name] for name in self.env_to_tag if name in os.environ}
        return {**environment, **self.extra_tags, DAGSTER_RUN_ID: run_id}
