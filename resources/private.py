"""What is used of Dagster's private modules, all of it; nothing else imports any.

`tests/test_resources_private.py` says what has moved with a new release. What each is for, and when
it can go:

- `EntitySubset`: the type that conditions of automation compute with; once it is public.
- `AssetCheckEvaluationTargetMaterializationData`: which materialisation a check of one partition of
  a range judges; once a check may yield a result for each partition.
- `ASSET_EVENTS`, `DagsterEventBatchMetadata`: events of a range are stored together; once
  `MaterializeResult` takes metadata and a data version for each partition of a range.
- `EngineEventData`, `CheckRunHealthResult`, `WorkerStatus`: whether the process of a run is still
  there; once `DefaultRunLauncher` says that itself.
- `SubmitRunContext`: what a run coordinator is given; once it is public, as its base class is.
- `BulkActionsFilter`, `BulkActionStatus`, `PartitionBackfill`: backfills under way and failed; once
  `DagsterInstance.get_backfills` is public.
- `ConsolidatedSqliteEventLogStorage`, `SqliteRunStorage`, `SqliteScheduleStorage`,
  `ConfigurableClassData`: databases that are made as a whole, batches in one transaction; once
  Dagster's own are. A home on PostgreSQL needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dagster._core.asset_graph_view.entity_subset import EntitySubset
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.events import ASSET_EVENTS, DagsterEventBatchMetadata, EngineEventData
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus
from dagster._core.run_coordinator import SubmitRunContext
from dagster._serdes import ConfigurableClassData

if TYPE_CHECKING:
    from dagster._core.storage.event_log.sqlite import ConsolidatedSqliteEventLogStorage
    from dagster._core.storage.runs import SqliteRunStorage
    from dagster._core.storage.schedules import SqliteScheduleStorage

__all__ = [
    "ASSET_EVENTS", "AUTOMATION_CONDITION", "AUTO_MATERIALIZE", "BACKFILL", "CODE_VERSION",
    "DATA_VERSION", "EVENT_LOG", "GRPC_INFO", "NO_COMPUTE_LOGS", "OBSERVATION", "PARTITION",
    "PRIORITY", "RANGE_END", "RANGE_START", "RETRY_NUMBER", "SCHEDULE_NAME", "SENSOR_NAME", "USER",
    "AssetCheckEvaluationTargetMaterializationData", "BulkActionStatus", "BulkActionsFilter",
    "CheckRunHealthResult", "ConfigurableClassData", "ConsolidatedSqliteEventLogStorage",
    "DagsterEventBatchMetadata", "EngineEventData", "EntitySubset", "PartitionBackfill",
    "SqliteRunStorage", "SqliteScheduleStorage", "SubmitRunContext", "WorkerStatus",
]  # fmt: skip

# Names that Dagster stores, or reads in dagster.yaml: they outlive the constants that it has for
# them.
CODE_VERSION = "dagster/code_version"
DATA_VERSION = "dagster/data_version"
PARTITION = "dagster/partition"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
BACKFILL = "dagster/backfill"
PRIORITY = "dagster/priority"
RETRY_NUMBER = "dagster/retry_number"
SCHEDULE_NAME = "dagster/schedule_name"
SENSOR_NAME = "dagster/sensor_name"
AUTO_MATERIALIZE = "dagster/auto_materialize"
AUTOMATION_CONDITION = "dagster/from_automation_condition"
USER = "user"
GRPC_INFO = ".dagster/grpc_info"
OBSERVATION = "__source_asset_observation__"
EVENT_LOG = "event_log.db"
NO_COMPUTE_LOGS = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}

_STORAGES = {
    "ConsolidatedSqliteEventLogStorage": "dagster._core.storage.event_log.sqlite",
    "SqliteRunStorage": "dagster._core.storage.runs",
    "SqliteScheduleStorage": "dagster._core.storage.schedules",
}


def __getattr__(name: str) -> Any:
    # They import SQLAlchemy and Alembic, which a code server does without until it is asked for
    # what is stored.
    if name in _STORAGES:
        return getattr(import_module(_STORAGES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
