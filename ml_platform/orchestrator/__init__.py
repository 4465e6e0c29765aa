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

__all__ = [
    "UNDER_WAY",
    "Backfill",
    "Connection",
    "Orchestrator",
    "Partitions",
    "Run",
    "RunStatus",
    "StepStatus",
]
