"""Published pipelines: started under a name, at a version, with the parameters they declare."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypedDict

from msgspec import Meta, Struct
from pydantic import ValidationError

from ml_platform.backfill import judge
from ml_platform.backfill.plan import due_with_followers
from ml_platform.errors import (
    LaunchRefused,
    NoChampion,
    NotServed,
    OrchestratorError,
    ParameterNotAllowed,
)
from ml_platform.orchestrator import CodeLocation
from ml_platform.orchestrator.parameters import tags_of_pipeline
from ml_platform.registry import champions_of
from ml_platform.serving.callbacks import Callbacks
from ml_platform.serving.control.given import PLACE, RunParameters, read_given
from ml_platform.serving.control.launches import CAUSE, Launches, because
from ml_platform.serving.control.once import ControlOutcome, ControlRequest
from ml_platform.serving.control.parameter_schema import schema_of
from ml_platform.serving.control.requests import Reason
from ml_platform.spec.pipelines import Pipeline
from ml_platform.spec.tables import computed_tables, downstream_of
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.spec.values import unknown
from ml_platform.spec.windows import Window

ACTION = "run pipeline"
"""What the audit calls it."""


class RunPipeline(Struct, frozen=True, forbid_unknown_fields=True):
    """A run of a published pipeline."""

    parameters: Annotated[dict[str, Any], Meta(description="As the pipeline declares them.")] = {}
    reason: Reason | None = None
    callbacks: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=100)]],
        Meta(
            max_length=10,
            description="Registered receivers that are notified when the run has ended, by name.",
        ),
    ] = []
    # As Azure Data Factory calls it.
    callBackUri: (  # noqa: N815
        Annotated[
            str,
            Meta(
                min_length=1,
                max_length=4000,
                description="Address that is notified when the run has ended, if the service "
                "permits addresses of its kind; Azure Data Factory's Webhook activity adds it.",
            ),
        ]
        | None
    ) = None


class PublishedPipeline(TypedDict):
    """A pipeline that can be started."""

    name: str
    run: Literal["train", "score", "backfill"]
    description: str
    parameters: Annotated[Mapping[str, Any], Meta(description="JSON Schema.")]
    callbacks: list[str]


class PipelineVersion(TypedDict):
    """A version of the code that pipelines can be run by."""

    version: Annotated[str | None, Meta(description="A commit of git.")]
    is_current: bool
    code_location: str
    pipelines: Annotated[
        Mapping[str, Mapping[str, Any]],
        Meta(description="By name, the parameters as JSON Schema."),
    ]


class PipelineList(TypedDict):
    """Pipelines of the current version, and the versions there are."""

    pipelines: list[PublishedPipeline]
    versions: list[PipelineVersion]


@dataclass(frozen=True)
class Pipelines:
    """Starts runs of published pipelines, and says which there are.

    Raises NotServed where there is no such pipeline or version, ParameterNotAllowed, and what
    `Launches` raises.
    """

    launches: Launches
    callbacks: Callbacks

    def run(
        self, request: ControlRequest, name: str, version: str | None, asked: RunPipeline
    ) -> ControlOutcome:
        """Start a pipeline, once under a key; receivers are notified when it has ended.

        version: commit of the code that is to run, or its beginning; by default the current one.
        """
        case, now = request.use_case, datetime.now(UTC)
        local = case.published_pipelines.get(name)
        if version is None:
            # What the service knows is refused without asking Dagster.
            local = _required(case, name, case.published_pipelines)
            read_given(case, local, asked.parameters, now, self.launches.newest)
        registered = local.callbacks if local else ()
        receivers = self.callbacks.addressed((*registered, *asked.callbacks), asked.callBackUri)

        def launch() -> ControlOutcome:
            location = self._location(case, version)
            pipeline = _required(case, name, _declared(location))
            given = read_given(case, pipeline, asked.parameters, now, self.launches.newest)
            return self._launch(request, name, pipeline, given, location, asked.reason)

        outcome = self.launches.started_once(request, launch)
        if outcome.run is None:
            return outcome
        self.callbacks.add(outcome.run, case.name, request.by, receivers)
        callbacks = {"callbacks": self.callbacks.states(outcome.run)}
        run = {**outcome.document["run"], **callbacks}
        return ControlOutcome({**outcome.document, "run": run}, outcome.run, outcome.is_repeat)

    def listed(self, case: UseCase) -> PipelineList:
        """Pipelines of the current version with their parameters, and the versions there are."""
        locations = self.launches.dagster.code_locations(case.name)
        return {
            "pipelines": [
                {
                    "name": name,
                    "run": pipeline.run,
                    "description": pipeline.description,
                    "parameters": schema_of(case, pipeline),
                    "callbacks": list(pipeline.callbacks),
                }
                for name, pipeline in case.published_pipelines.items()
            ],
            "versions": [
                {
                    "version": location.version,
                    "is_current": not location.is_kept,
                    "code_location": location.name,
                    "pipelines": {
                        name: schema_of(case, pipeline)
                        for name, pipeline in _declared(location).items()
                    },
                }
                for location in locations
            ],
        }

    def _location(self, case: UseCase, version: str | None) -> CodeLocation:
        locations = self.launches.dagster.code_locations(case.name)
        if version is None:
            current = [location for location in locations if not location.is_kept]
            if not current:
                raise LaunchRefused(
                    f"a pipeline of {case.name}", "no code location has its current version"
                )
            return current[0]
        found = [location for location in locations if location.is_version(version)]
        if len({location.version for location in found}) != 1:
            what = "several versions begin with" if found else "no code location runs version"
            known = ", ".join(str(location.version or "unknown") for location in locations)
            raise NotServed(f"{what} '{version[:60]}' of {case.name}; available: {known or 'none'}")
        return found[0]

    def _launch(
        self,
        request: ControlRequest,
        name: str,
        pipeline: Pipeline,
        given: RunParameters,
        location: CodeLocation,
        reason: str | None,
    ) -> ControlOutcome:
        case = request.use_case
        self._require_short(case, given)
        tables = self._tables(case, pipeline, given)
        if not tables:
            return ControlOutcome({"run": None, "parameters": dict(given.asked)})
        if lacking := [table for table in tables if table not in location.tables]:
            raise LaunchRefused(
                f"pipeline '{name}' at {location.version}",
                f"the code location {location.name} has no table {', '.join(lacking)}",
            )
        tags = {
            **tags_of_pipeline(name, location.version, given.asked),
            **(CAUSE if pipeline.run == "train" else {}),
            **because(reason),
        }
        keys = case.calendar.keys(given.range)
        return self.launches.launch(
            request, ACTION, tables, keys, tags, location,
            pipeline=name, version=location.version,
        )  # fmt: skip

    def _require_short(self, case: UseCase, given: RunParameters) -> None:
        longest = self.launches.settings.max_partitions_per_run
        if longest is not None and sum(1 for _ in case.calendar.windows(given.range)) > longest:
            raise ParameterNotAllowed(f"{PLACE}.to", f"a run has {longest} partitions at most here")

    def _tables(self, case: UseCase, pipeline: Pipeline, given: RunParameters) -> Sequence[str]:
        """What a run computes, each table after those that it reads."""
        match pipeline.run:
            case "train":
                return ("model", "promotions")
            case "score":
                if lacking := self._lacking_champion(case, given.range):
                    raise lacking
                features = [feature_table(view) for view in case.model_views]
                return (*self._inputs(case, pipeline, given, features), "predictions")
            case "backfill":
                tables = self._inputs(case, pipeline, given, computed_tables(case))
                if self._lacking_champion(case, given.range) is None:
                    return tables
                # Until there is a champion nothing can be predicted; all else can be computed.
                predicted = downstream_of(case, ["predictions"])
                return [name for name in tables if name not in predicted]

    def _inputs(
        self, case: UseCase, pipeline: Pipeline, given: RunParameters, tables: Sequence[str]
    ) -> tuple[str, ...]:
        due = due_with_followers(case, judge(self.launches.lake, case, given.range, tables))
        # What has landed, here or at another place, is not known before it is read.
        sources = tuple(case.sources) if pipeline.ingest else given.locations
        followers = downstream_of(case, sources)
        return (*sources, *(name for name in tables if due[name] or name in followers))

    def _lacking_champion(self, case: UseCase, asked: Window) -> NoChampion | None:
        """Why nothing of a range can be predicted; None where some of it can."""
        champions, lacking = champions_of(self.launches.lake, case, asked)
        if champions or not lacking or case.scored_by_any_version:
            return None
        return next(iter(lacking.values()))


def _declared(location: CodeLocation) -> dict[str, Pipeline]:
    try:
        return {name: Pipeline.model_validate(d) for name, d in location.pipelines.items()}
    except ValidationError as error:
        raise OrchestratorError(
            f"what the code location {location.name} declares of its pipelines cannot be read by "
            f"this version of the service: {error.errors()[0]['msg']}"
        ) from error


def _required(case: UseCase, name: str, pipelines: Mapping[str, Pipeline]) -> Pipeline:
    if name not in pipelines:
        raise NotServed(f"{case.name} has {unknown('pipeline', name[:60], pipelines)}")
    return pipelines[name]
