"""What is shown of a sensor whose last tick failed."""

from typing import Any

from ml_platform.orchestrator.ticks import failing_ticks

UNREACHABLE = (
    "dagster._core.errors.DagsterUserCodeUnreachableError: Could not reach user code server"
)
DUMP = (
    "grpc._channel._InactiveRpcError: <_InactiveRpcError of RPC that terminated with:\n"
    '\tstatus = StatusCode.UNAVAILABLE\n\tdetails = ""\n>\n'
)
WRAPPED = "dagster._core.errors.SensorExecutionError: Error occurred during the execution"


def shown(message: str, *causes: str) -> str:
    """The error of a sensor, of an answer as Dagster's GraphQL gives it."""
    error = {"message": f"{message}\n", "causes": [{"message": cause} for cause in causes]}
    ticks = [{"status": "FAILURE", "timestamp": 1.7e9, "error": error}]
    sensor = {"name": "trips_landing", "sensorState": {"status": "RUNNING", "ticks": ticks}}
    location: dict[str, Any] = {
        "__typename": "RepositoryLocation",
        "repositories": [{"sensors": [sensor], "schedules": []}],
    }
    entry = {"name": "one", "updatedTimestamp": 1.7e9, "locationOrLoadError": location}
    said = {"workspaceOrError": {"__typename": "Workspace", "locationEntries": [entry]}}
    (failing,) = failing_ticks(lambda query, variables: said)
    return failing.error


def test_what_a_tick_raised_is_shown_and_not_what_wraps_it() -> None:
    assert shown(WRAPPED, "ValueError: no folder\n") == "ValueError: no folder"
    assert shown(WRAPPED) == WRAPPED


def test_of_a_code_server_that_does_not_answer_dagsters_words_are_shown() -> None:
    assert shown(UNREACHABLE, DUMP) == UNREACHABLE
    assert shown(UNREACHABLE, "ConnectionError: later", DUMP) == "ConnectionError: later"
    # Where nothing else is said, it is better than nothing.
    assert shown(DUMP) == DUMP.strip()
