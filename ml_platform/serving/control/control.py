"""All of it together, on one lake, registry and Dagster."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ml_platform.access import Caller
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import Registry
from ml_platform.serving.callbacks import Callbacks, Receivers, open_callbacks
from ml_platform.serving.callbacks.post import Post
from ml_platform.serving.control.answers import open_answers
from ml_platform.serving.control.decisions import Decisions
from ml_platform.serving.control.documents import Look, Visible
from ml_platform.serving.control.launches import Launches
from ml_platform.serving.control.once import ControlRequest, Once
from ml_platform.serving.control.pipelines import Pipelines
from ml_platform.serving.control.recording import Recorder
from ml_platform.serving.control.reference_states import REFERENCE
from ml_platform.serving.control.references import References
from ml_platform.serving.control.rollbacks import Rollbacks
from ml_platform.serving.control.row_places import RowPlaces
from ml_platform.serving.control.runs import Runs
from ml_platform.settings import ServingSettings, Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake

PIPELINE_OF = "pipeline"
"""What a look at a run of a published pipeline has."""


@dataclass(frozen=True)
class Control:
    """What can be asked for. Everything blocks: it is for threads, not for an event loop."""

    dagster: Orchestrator
    launches: Launches
    decisions: Decisions
    runs: Runs
    recorder: Recorder
    references: References
    pipelines: Pipelines

    def end(
        self, run_id: str, caller: Caller, visible: Visible, require: Callable[[str], None]
    ) -> Look:
        """End a run, as `Runs.end`; it is recorded where there is something to end."""

        def before(name: str) -> None:
            self.recorder.record(
                ControlRequest(self.runs.use_cases[name], caller), "end run", run_id
            )

        if REFERENCE.fullmatch(run_id):
            return self.references.end(run_id, visible, require, before)
        return self.runs.end(run_id, visible, require, before)

    def look(self, run_id: str, visible: Visible) -> Look:
        """How far it is: a run, a backfill, a rollback or a batch by reference."""
        if REFERENCE.fullmatch(run_id):
            return self.references.look(run_id, visible)
        found = self.runs.look(run_id, visible)
        if PIPELINE_OF not in found["run"]:
            return found
        callbacks = self.pipelines.callbacks.states(run_id)
        return {**found, "run": {**found["run"], "callbacks": callbacks}}

    def close(self) -> None:
        self.pipelines.callbacks.close()
        self.references.close()
        self.dagster.close()


def open_control(
    lake: Lake,
    registry: Registry,
    settings: Settings,
    use_cases: Mapping[str, UseCase],
    serving: ServingSettings,
) -> Control:
    """Control of a deployment. Dagster is not asked before something is wanted of it."""
    dagster = Orchestrator(settings.dagster_url)
    rollbacks = Rollbacks(lake, dagster, use_cases)
    runs, recorder = Runs(dagster, use_cases, rollbacks), Recorder(lake)
    once = Once(open_answers(lake))
    references = References(lake, registry, recorder, RowPlaces(settings, serving))
    launches = Launches(lake, settings, dagster, runs, once, recorder, references)
    callbacks = Callbacks(
        lake, open_callbacks(lake), Receivers(serving), Post(serving), runs.look_for
    )  # fmt: skip
    return Control(
        dagster,
        launches,
        Decisions(lake, registry, rollbacks, once, recorder),
        runs,
        recorder,
        references,
        Pipelines(launches, callbacks),
    )
