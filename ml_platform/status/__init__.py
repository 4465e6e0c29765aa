"""How use cases are: tables, champion, what is watched, what waits for people."""

from ml_platform.status.dagster import Dagster, ask_dagster, owner_of
from ml_platform.status.document import first_problem, status_document
from ml_platform.status.grouping import AlertGroup, grouped
from ml_platform.status.health import (
    Champion,
    Health,
    OpenAlert,
    Undelivered,
    open_alerts,
    read_health,
    undelivered,
)

__all__ = [
    "AlertGroup",
    "Champion",
    "Dagster",
    "Health",
    "OpenAlert",
    "Undelivered",
    "ask_dagster",
    "first_problem",
    "grouped",
    "open_alerts",
    "owner_of",
    "read_health",
    "status_document",
    "undelivered",
]
