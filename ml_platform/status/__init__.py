"""How use cases are: tables, champion, what is watched, what waits for people."""

from ml_platform.status.costs import Cost, costs_document, read_costs, summed, training_costs
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
    "Cost",
    "Dagster",
    "Health",
    "OpenAlert",
    "Undelivered",
    "ask_dagster",
    "costs_document",
    "first_problem",
    "grouped",
    "open_alerts",
    "owner_of",
    "read_costs",
    "read_health",
    "status_document",
    "summed",
    "training_costs",
    "undelivered",
]
