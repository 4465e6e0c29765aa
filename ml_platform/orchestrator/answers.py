"""What an answer in GraphQL says: the thing that was asked for, or why it is not there."""

from collections.abc import Mapping
from typing import Any

from ml_platform.errors import OrchestratorError, RunUnknown


def known(said: Mapping[str, Any], wanted: str) -> Mapping[str, Any]:
    """An answer, where it is of the type that was wanted.

    Raises RunUnknown where there is no such run or backfill, else OrchestratorError with what
    Dagster says.
    """
    if said["__typename"] in {"RunNotFoundError", "BackfillNotFoundError"}:
        raise RunUnknown(reason(said))
    if said["__typename"] != wanted:
        raise OrchestratorError(reason(said))
    return said


def reason(said: Mapping[str, Any]) -> str:
    """Why an answer is another one than was wanted, in Dagster's words."""
    listed = "; ".join(error["message"] for error in said.get("errors", ()))
    return str(said.get("message") or listed or said["__typename"]).strip()
