"""Sensors, schedules and code locations that fail, as Dagster's newest ticks say."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from ml_platform.errors import OrchestratorError

Post = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""Sends a GraphQL query with its variables and returns its data."""

GRPC_ERROR = "grpc._channel._InactiveRpcError"
"""What a code server that does not answer causes; its first line says nothing."""
STATE = """
  status
  ticks(limit: 1, statuses: [SUCCESS, SKIPPED, FAILURE]) {
    status timestamp error { message causes { message } }
  }
"""

TICKS = f"""
query Ticks {{
  workspaceOrError {{
    __typename
    ... on PythonError {{ message }}
    ... on Workspace {{
      locationEntries {{
        name
        updatedTimestamp
        locationOrLoadError {{
          __typename
          ... on PythonError {{ message causes {{ message }} }}
          ... on RepositoryLocation {{
            repositories {{
              sensors {{ name sensorState {{ {STATE} }} }}
              schedules {{ name scheduleState {{ {STATE} }} }}
            }}
          }}
        }}
      }}
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Failing:
    """Something that should act by itself and whose last attempt failed."""

    kind: Literal["sensor", "schedule", "code location"]
    name: str
    failed_at: datetime
    error: str


def failing_ticks(post: Post) -> tuple[Failing, ...]:
    """Running sensors and schedules whose newest tick failed, and locations that do not load.

    Raises OrchestratorError where Dagster cannot say, and what `post` raises.
    """
    said = post(TICKS, {})["workspaceOrError"]
    if said["__typename"] != "Workspace":
        raise OrchestratorError(str(said.get("message") or said["__typename"]).strip())
    return tuple(failing for entry in said["locationEntries"] for failing in _of_location(entry))


def _of_location(entry: Mapping[str, Any]) -> Iterator[Failing]:
    location = entry["locationOrLoadError"] or {"__typename": "nothing yet"}
    if location["__typename"] == "PythonError":
        at = datetime.fromtimestamp(entry["updatedTimestamp"], UTC)
        yield Failing("code location", entry["name"], at, _cause(location))
    for repository in location.get("repositories", ()):
        for sensor in repository["sensors"]:
            yield from _of_state("sensor", sensor["name"], sensor["sensorState"])
        for schedule in repository["schedules"]:
            yield from _of_state("schedule", schedule["name"], schedule["scheduleState"])


def _of_state(
    kind: Literal["sensor", "schedule"], name: str, state: Mapping[str, Any]
) -> Iterator[Failing]:
    for tick in state["ticks"]:
        if state["status"] == "RUNNING" and tick["status"] == "FAILURE":
            at = datetime.fromtimestamp(tick["timestamp"], UTC)
            yield Failing(kind, name, at, _cause(tick["error"]))


def _cause(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return "failed without an error"
    # Dagster wraps what a tick raised; the last cause is what it was, unless it is gRPC's own.
    messages = [str(each["message"]).strip() for each in (error, *error["causes"])]
    readable = [message for message in messages if not message.startswith(GRPC_ERROR)]
    return (readable or messages)[-1]
