"""Environments of use cases: Python packages that one use case has and the others have not."""

from ml_platform.spec.environments.making import make_environment
from ml_platform.spec.environments.own import (
    LOCK,
    Environment,
    environment_of,
    environments_of,
    is_platforms,
    runs_here,
)
from ml_platform.spec.environments.workspace import WORKSPACE, location_of, write_workspace

__all__ = [
    "LOCK",
    "WORKSPACE",
    "Environment",
    "environment_of",
    "environments_of",
    "is_platforms",
    "location_of",
    "make_environment",
    "runs_here",
    "write_workspace",
]
