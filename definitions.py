"""Composition root: every use case as Dagster definitions. Nothing that it wires imports it."""

import gc
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import dagster as dg

from ml_platform.errors import SpecErrors
from ml_platform.settings import Settings
from ml_platform.spec.environments import (
    Environment,
    environments_of,
    is_platforms,
    location_of,
    runs_here,
)
from ml_platform.spec.loading import load_use_cases
from ml_platform.spec.use_case import UseCase
from ml_platform_dagster.assets.backups import build_backup
from ml_platform_dagster.assets.features import build_features
from ml_platform_dagster.assets.freshness import with_freshness
from ml_platform_dagster.assets.lake_upkeep import build_lake_upkeep
from ml_platform_dagster.assets.monitoring import build_monitoring
from ml_platform_dagster.assets.online import build_online
from ml_platform_dagster.assets.publishing import build_publishing
from ml_platform_dagster.assets.rollback import build_rollback_job
from ml_platform_dagster.assets.scoring import build_scoring
from ml_platform_dagster.assets.sources import build_sources
from ml_platform_dagster.assets.training import build_training
from ml_platform_dagster.resources import LakeResource, OnlineStoreResource, RegistryResource
from ml_platform_dagster.resources.executor import build_executor
from ml_platform_dagster.resources.versions import marked_as_kept
from ml_platform_dagster.sensors.alerts import build_alerts
from ml_platform_dagster.sensors.audit import build_audit
from ml_platform_dagster.sensors.automation import build_automation
from ml_platform_dagster.sensors.landing import build_landing
from ml_platform_dagster.sensors.nightly import build_nightly_schedules
from ml_platform_dagster.sensors.retraining import build_retraining, build_retraining_schedule
from ml_platform_dagster.sensors.retries import build_retries
from ml_platform_dagster.sensors.rollback import build_rollback
from ml_platform_dagster.sensors.upkeep import build_upkeep

ASSETS = (
    build_sources,
    build_features,
    build_online,
    build_training,
    build_scoring,
    build_publishing,
    build_monitoring,
)
JOBS = (build_rollback_job,)
SENSORS = (
    build_landing,
    build_automation,
    build_retraining,
    build_rollback,
    build_retries,
    build_alerts,
    build_audit,
)
SCHEDULES = (build_retraining_schedule, build_upkeep)


def build_definitions(settings: Settings) -> dg.Definitions:
    """Definitions of the use cases that run in this environment.

    Broken ones show up with what is wrong; in the platform's environment those that have another
    are named.
    """
    loaded = load_use_cases(settings.use_cases, settings.databases, settings.derived)
    use_cases = [case for case in loaded.use_cases.values() if runs_here(case.name, case.folder)]
    broken = {
        name: errors
        for name, errors in loaded.broken.items()
        if runs_here(name, settings.use_cases / name)
    }
    others = environments_of(settings, loaded).values() if is_platforms() else ()
    for errors in broken.values():
        dg.get_dagster_logger("use_cases").error("%s", errors)
    with warnings.catch_warnings():
        # Dagster announces interfaces that may still change; the lock pins the ones used here.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        built = _build(use_cases, broken, others, settings)
        return _kept(built) if settings.kept_version else built


def _build(
    use_cases: list[UseCase],
    broken: Mapping[str, SpecErrors],
    others: Iterable[Environment],
    settings: Settings,
) -> dg.Definitions:
    steps = [
        (case, with_freshness(asset, case))
        for case in use_cases
        for build in ASSETS
        for asset in build(case, settings)
    ]
    return dg.Definitions(
        assets=[
            *(asset for _, asset in steps),
            *(_broken(name, errors) for name, errors in broken.items()),
            *(_elsewhere(environment) for environment in others),
        ],
        jobs=[
            *(each for case in use_cases for build in JOBS for each in build(case, settings)),
            # One job each for the lake, whatever the number of code locations.
            *(build_backup(settings) if is_platforms() else ()),
            *(build_lake_upkeep(settings) if is_platforms() else ()),
        ],
        sensors=[each for case in use_cases for build in SENSORS for each in build(case, settings)],
        schedules=[
            *(each for case in use_cases for build in SCHEDULES for each in build(case, settings)),
            *(build_nightly_schedules(settings) if is_platforms() else ()),
        ],
        resources={
            "lake": LakeResource(),
            "online_store": OnlineStoreResource(),
            "registry": RegistryResource(),
        },
        executor=build_executor(settings, steps),
    )


def _kept(built: dg.Definitions) -> dg.Definitions:
    """A code location that only runs what is asked of its version: nothing starts by itself."""
    assets = [
        marked_as_kept(each) for each in built.assets or () if isinstance(each, dg.AssetsDefinition)
    ]
    return dg.Definitions(assets=assets, resources=built.resources, executor=built.executor)


def _broken(name: str, errors: SpecErrors) -> dg.AssetSpec:
    lines = "\n".join(f"- {error}" for error in errors.errors)
    return dg.AssetSpec(
        dg.AssetKey([name.replace("/", "_"), "is_broken"]),
        group_name="broken_use_cases",
        description=f"This use case cannot be loaded; the others are not affected.\n\n{lines}",
        kinds={"broken"},
    )


def _elsewhere(environment: Environment) -> dg.AssetSpec:
    return dg.AssetSpec(
        dg.AssetKey([environment.use_case, "environment"]),
        group_name="environments",
        description=(
            f"This use case runs in an environment of its own, in the code location "
            f"`{location_of(environment.use_case)}`. `{environment.command}` makes or updates it; "
            "`ml-platform check` says whether it is up to date."
        ),
        kinds={"python"},
    )


@contextmanager
def _kept_for_good() -> Iterator[None]:
    """Leave what is made out of garbage collection: a process keeps its definitions to its end.

    The collector would look through all of it again and again, a sixth of the time of loading.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


with _kept_for_good():
    defs = build_definitions(Settings())
