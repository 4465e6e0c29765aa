"""Dagster from outside: its GraphQL interface over HTTP, without importing it."""

from ml_platform.orchestrator.client import Orchestrator
from ml_platform.orchestrator.connection import Connection
from ml_platform.orchestrator.outcomes import Outcomes, outcomes_since
from ml_platform.orchestrator.records import (
    ATTEMPT_OF,
    UNDER_WAY,
    AssetPartitions,
    Backfill,
    Run,
    RunStatus,
    StepStatus,
)
from ml_platform.orchestrator.recovery import keep_loaded
from ml_platform.orchestrator.unanswered import (
    MODEL,
    is_answered,
    sentence,
    tables_of,
    unanswered,
    unanswered_backfills,
)
from ml_platform.orchestrator.versions import CodeLocation

__all__ = [
    "ATTEMPT_OF",
    "MODEL",
    "UNDER_WAY",
    "AssetPartitions",
    "Backfill",
    "CodeLocation",
    "Connection",
    "Orchestrator",
    "Outcomes",
    "Run",
    "RunStatus",
    "StepStatus",
    "is_answered",
    "keep_loaded",
    "outcomes_since",
    "sentence",
    "tables_of",
    "unanswered",
    "unanswered_backfills",
]
