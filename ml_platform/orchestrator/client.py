"""What the platform asks of Dagster: launch, look, end."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from ml_platform.errors import LaunchRefused
from ml_platform.orchestrator import queries
from ml_platform.orchestrator.answers import known, reason
from ml_platform.orchestrator.connection import TIMEOUT_SECONDS, Connection
from ml_platform.orchestrator.parameters import KEPT
from ml_platform.orchestrator.records import (
    BACKFILL_UNDER_WAY,
    RANGE_END,
    RANGE_START,
    AssetPartitions,
    Backfill,
    Run,
    RunStatus,
    table_of_step,
)
from ml_platform.orchestrator.versions import CodeLocation, read_locations

ASSET_JOB = "__ASSET_JOB"
LOOKED_AT_BACKFILLS = 500

# What Dagster's web server says of a code location once it has tried for about ten seconds.
UNREACHABLE = "DagsterUserCodeUnreachableError"

# A process for each step would take longer to start than most steps to run.
IN_PROCESS: Mapping[str, Any] = {"execution": {"config": {"in_process": {}}}}


class Orchestrator:
    """Dagster's web server at one address.

    Tables are named `<use case>/<table>`, partitions by their keys. Every method raises
    OrchestratorUnavailable where nothing answers, and OrchestratorError where Dagster fails.
    """

    def __init__(self, url: str, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.connection = Connection(url, timeout_seconds)

    @property
    def url(self) -> str:
        return self.connection.url

    def post(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The data of any GraphQL query."""
        return self.connection.post(query, variables)

    def link(self, run_id: str) -> str:
        """Where a person sees a run."""
        return f"{self.url}/runs/{run_id}"

    def launch_range(
        self,
        tables: Sequence[str],
        first: str,
        last: str,
        tags: Mapping[str, str],
        before: Callable[[], None] = lambda: None,
        location: CodeLocation | None = None,
    ) -> Run:
        """One run, in one process, of all partitions from first to last of all tables.

        before: called right before the launch, once Dagster has said that it knows the tables.
        location: whose code runs; by default that of the current version.
        Raises LaunchRefused with Dagster's words: no such asset, no code location, read-only.
        """
        repository = location.selector if location else self._repository(tables)
        selector = {**repository, "assetSelection": [_key(t) for t in tables]}
        labels = {**tags, RANGE_START: first, RANGE_END: last}
        params = {
            "selector": {**selector, "pipelineName": ASSET_JOB},
            "runConfigData": IN_PROCESS,
            "executionMetadata": {"tags": _tags(labels)},
        }
        before()
        said = self.post(queries.LAUNCH, {"params": params})["launchRun"]
        if said["__typename"] != "LaunchRunSuccess":
            raise LaunchRefused(f"a run of {', '.join(tables)}", reason(said))
        return Run.read(said["run"])

    def launch_backfill(
        self,
        window_ranges: Mapping[str, Sequence[tuple[str, str]]],
        title: str,
        tags: Mapping[str, str],
        before: Callable[[], None] = lambda: None,
    ) -> str:
        """A backfill that the daemon carries out; its id.

        window_ranges: first and last partition of each range, by table. before: as in
        `launch_range`; so is LaunchRefused.
        """
        # Dagster takes the code location whose name comes first, whoever says otherwise.
        self._repository(list(window_ranges), is_dagsters_choice=True)
        params = {
            "partitionsByAssets": [
                {"assetKey": _key(table), "partitions": {"ranges": _ranges(found)}}
                for table, found in window_ranges.items()
            ],
            "title": title,
            "tags": _tags(tags),
        }
        before()
        said = self.post(queries.LAUNCH_BACKFILL, {"params": params})["launchPartitionBackfill"]
        if said["__typename"] != "LaunchBackfillSuccess":
            raise LaunchRefused(f"a backfill of {', '.join(window_ranges)}", reason(said))
        return str(said["backfillId"])

    def runs(
        self,
        tags: Mapping[str, str] | None = None,
        statuses: Iterable[RunStatus] = (),
        limit: int | None = None,
        created_after: datetime | None = None,
        updated_after: datetime | None = None,
    ) -> list[Run]:
        """Runs that carry all of the tags and have one of the statuses, newest first."""
        asked: dict[str, Any] = {}
        if tags:
            asked["tags"] = _tags(tags)
        if statuses := list(statuses):
            asked["statuses"] = [status.value for status in statuses]
        if created_after:
            asked["createdAfter"] = created_after.timestamp()
        if updated_after:
            asked["updatedAfter"] = updated_after.timestamp()
        said = self.post(queries.RUNS, {"filter": asked, "limit": limit})["runsOrError"]
        return [Run.read(each) for each in known(said, "Runs")["results"]]

    def run(self, run_id: str) -> Run:
        """One run, with its steps and the number of its materialisations."""
        said = self.post(queries.RUN_BY_ID, {"id": run_id})["runOrError"]
        return Run.read(known(said, "Run"))

    def failures(self, run_id: str) -> tuple[str, ...]:
        """Why a run failed: the cause in each failed step, or else what ended the run."""
        events = self._events(run_id)
        steps = tuple(
            f"{table_of_step(event['stepKey'])}: {_cause(event['error'])}"
            for event in events
            if event["__typename"] == "ExecutionStepFailureEvent"
        )
        return steps or tuple(
            _cause(event["error"]) if event["error"] else event["message"]
            for event in events
            if event["__typename"] == "RunFailureEvent"
        )

    def was_ended(self, run_id: str) -> bool:
        """Whether somebody ended a run that Dagster calls failed, and no step of it did fail.

        That is what becomes of one that is ended while its process is just starting.
        """
        kinds = {event["__typename"] for event in self._events(run_id)}
        return "RunCancelingEvent" in kinds and "ExecutionStepFailureEvent" not in kinds

    def backfill(self, backfill_id: str) -> Backfill:
        """How far a backfill of the daemon is."""
        answer = self.post(queries.BACKFILL, {"id": backfill_id})["partitionBackfillOrError"]
        return Backfill.read(known(answer, "PartitionBackfill"))

    def backfills(self, tags: Mapping[str, str]) -> list[Backfill]:
        """Backfills of the daemon that are not over and carry all of the tags, newest first."""
        asked = {"filters": {"statuses": list(BACKFILL_UNDER_WAY)}}
        said = self.post(queries.BACKFILLS, asked)["partitionBackfillsOrError"]
        found = [Backfill.read(each) for each in known(said, "PartitionBackfills")["results"]]
        return [backfill for backfill in found if tags.items() <= backfill.tags.items()]

    def latest_backfill(self, tags: Mapping[str, str]) -> str | None:
        """Id of the newest backfill, over or not, that carries all of the tags.

        Looked for among the newest `LOOKED_AT_BACKFILLS`.
        """
        asked = {"limit": LOOKED_AT_BACKFILLS}
        said = self.post(queries.BACKFILL_TAGS, asked)["partitionBackfillsOrError"]
        for each in known(said, "PartitionBackfills")["results"]:
            if tags.items() <= {tag["key"]: tag["value"] for tag in each["tags"]}.items():
                return str(each["id"])
        return None

    def partitions(self, tables: Sequence[str]) -> dict[str, AssetPartitions]:
        """What Dagster knows of each table's partitions; tables it does not know are left out."""
        nodes = self.post(queries.PARTITIONS, {"keys": [_key(t) for t in tables]})["assetNodes"]
        found = {}
        for node in nodes:
            ranges = node["assetPartitionStatuses"].get("ranges", ())
            by_status: dict[str, list[tuple[str, str]]] = {}
            for each in ranges:
                by_status.setdefault(each["status"], []).append((each["startKey"], each["endKey"]))
            found["/".join(node["assetKey"]["path"])] = AssetPartitions(
                **{status.lower(): tuple(pairs) for status, pairs in by_status.items()}
            )
        return found

    def code_locations(self, use_case: str) -> list[CodeLocation]:
        """Code locations that have a use case, the current version first."""
        return read_locations(self.post, use_case)

    def terminate(self, run_id: str) -> None:
        """End a run; what it has committed stays."""
        known(self.post(queries.TERMINATE, {"id": run_id})["terminateRun"], "TerminateRunSuccess")

    def cancel_backfill(self, backfill_id: str) -> None:
        """End a backfill of the daemon, and its runs."""
        said = self.post(queries.CANCEL_BACKFILL, {"id": backfill_id})["cancelPartitionBackfill"]
        known(said, "CancelBackfillSuccess")

    def locations_without_server(self) -> list[str]:
        """Code locations whose server has died; not those whose code cannot be loaded."""
        said = known(self.post(queries.LOCATIONS)["workspaceOrError"], "Workspace")
        return [
            entry["name"]
            for entry in said["locationEntries"]
            if entry["loadStatus"] == "LOADED"
            and UNREACHABLE in (entry["locationOrLoadError"] or {}).get("message", "")
        ]

    def reload(self, location: str) -> None:
        """Start the server of a code location again, with the code as it is now."""
        said = self.post(queries.RELOAD, {"name": location})["reloadRepositoryLocation"]
        known(said, "WorkspaceLocationEntry")

    def close(self) -> None:
        self.connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self, run_id: str) -> list[Mapping[str, Any]]:
        events: list[Mapping[str, Any]] = []
        cursor: str | None = None
        while True:
            asked = {"id": run_id, "cursor": cursor}
            said = known(self.post(queries.EVENTS, asked)["logsForRun"], "EventConnection")
            events += said["events"]
            if not said["hasMore"]:
                return events
            cursor = said["cursor"]

    def _repository(
        self, tables: Sequence[str], *, is_dagsters_choice: bool = False
    ) -> Mapping[str, str]:
        nodes = self.post(queries.ASSETS, {"keys": [_key(t) for t in tables]})["assetNodes"]
        nodes_by_table = {"/".join(node["assetKey"]["path"]): node for node in nodes}
        unknown = [table for table in tables if table not in nodes_by_table]
        if unknown or not tables:
            raise LaunchRefused(
                f"a run of {', '.join(tables) or 'nothing'}",
                f"Dagster at {self.url} knows no asset {', '.join(unknown)}; is its code location "
                "loaded, and does it serve the same use cases?",
            )
        node = nodes_by_table[tables[0]]
        repository = node["repository"]
        if KEPT in {tag["key"] for tag in node["tags"]}:
            return self._current(tables, repository["location"]["name"], is_dagsters_choice)
        return {
            "repositoryName": repository["name"],
            "repositoryLocationName": repository["location"]["name"],
        }

    def _current(
        self, tables: Sequence[str], first: str, is_dagsters_choice: bool
    ) -> Mapping[str, str]:
        locations = self.code_locations(tables[0].partition("/")[0])
        current = [location for location in locations if not location.is_kept]
        if current and not is_dagsters_choice:
            return current[0].selector
        raise LaunchRefused(
            f"a run of {', '.join(tables)}",
            f"the code location {first} keeps an older version, and "
            + ("comes first by name; rename it" if current else "the current one is not loaded"),
        )


def _key(table: str) -> dict[str, list[str]]:
    return {"path": table.split("/")}


def _tags(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def _ranges(window_ranges: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"start": first, "end": last} for first, last in window_ranges]


def _cause(error: Mapping[str, Any] | None) -> str:
    if error is None:
        return "failed"
    # Dagster wraps what a step raised; the cause is what it was.
    said = error["causes"][0]["message"] if error["causes"] else error["message"]
    return str(said).strip()
