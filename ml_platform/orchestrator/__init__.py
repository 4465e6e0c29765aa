"""Dagster from outside: its GraphQL interface over HTTP, without importing it."""

from ml_platform.orchestrator.client import Orchestrator
from ml_platform.orchestrator.connection import Connection
from ml_platform.orchestrator.records import (
    UNDER_WAY,
    Backfill,
    Partitions,
    Run,
    RunStatus,
    StepStatus,
)
from ml_platform.orchestrator.recovery import keep_loaded

__all__ = [
    "UNDER_WAY",
    "Backfill",
    "Connection",
    "Orchestrator",
    "Partitions",
    "Run",
    "RunStatus",
    "StepStatus",
    "keep_loaded",
]
