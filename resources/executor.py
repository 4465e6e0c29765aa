"""What runs the steps of Dagster's runs: processes beside it, pods, workers of Celery."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from ml_platform.extras import extra
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase, feature_table

Step = tuple[UseCase, dg.AssetsDefinition]


def build_executor(settings: Settings, steps: Iterable[Step]) -> dg.ExecutorDefinition | None:
    """The executor that the settings name; None for Dagster's own, which starts processes.

    Raises DagsterInvalidDefinitionError where Celery is chosen without a broker.
    """
    match settings.executor:
        case "processes":
            return None
        case "kubernetes":
            with extra():
                from dagster_k8s import k8s_job_executor

            needs = settings.kubernetes_steps
            asked = {asset.op.name: _needs(use_case, asset, needs) for use_case, asset in steps}
            config = {"per_step_k8s_config": {name: each for name, each in asked.items() if each}}
            return _configured(k8s_job_executor, config)
        case "celery":
            with extra():
                from dagster_celery import celery_executor

            if settings.celery_broker is None:
                raise dg.DagsterInvalidDefinitionError(
                    "ML_PLATFORM_EXECUTOR is celery: ML_PLATFORM_CELERY_BROKER has to say where "
                    "its workers take steps from, as in redis://redis:6379/1"
                )
            broker = settings.celery_broker.get_secret_value()
            return _configured(celery_executor, {"broker": broker, "backend": broker})


def _configured(
    executor: dg.ExecutorDefinition, config: Mapping[str, Any]
) -> dg.ExecutorDefinition:
    # Runs may still configure the rest, such as how many steps run at once.
    return executor.configured(
        lambda of_run: {**of_run, **config}, config_schema=executor.config_schema.as_field()
    )


def _needs(
    use_case: UseCase, asset: dg.AssetsDefinition, needs: Mapping[str, Mapping[str, Any]]
) -> Mapping[str, Any]:
    """What the most particular entry says: of the use case and engine, use case, or engine."""
    by_engine = {"predictions", *map(feature_table, use_case.features)}
    is_computed = any(key.path[-1] in by_engine for key in asset.keys)
    engine = use_case.engine if is_computed else "in_process"
    for key in (f"{use_case.name}/{engine}", use_case.name, engine):
        if key in needs:
            return needs[key]
    return {}
