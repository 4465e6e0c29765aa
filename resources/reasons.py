"""Why a run trains, and on which length of history: tags that the run carries to the model."""

from collections.abc import Mapping

from ml_platform.orchestrator.parameters import (
    PARAMETERS,
    PIPELINE,
    TRAINING_WINDOW,
    VERSION,
    asked_in,
)
from ml_platform.replay import Trigger
from ml_platform.spec.duration import Duration
from ml_platform.spec.use_case import UseCase
from ml_platform.training.sample import Sample

CAUSE = "ml_platform/cause"
REASON = "ml_platform/reason"
FAILED = "ml_platform/failed"
SHOWN_AS = {
    CAUSE: "cause",
    REASON: "reason of training",
    FAILED: "failing partitions",
    TRAINING_WINDOW: "training window",
    PIPELINE: "pipeline",
    VERSION: "version of the pipeline",
    PARAMETERS: "parameters",
}


def tags_of_trigger(use_case: UseCase, trigger: Trigger) -> dict[str, str]:
    """Tags of a run that answers failing windows; the training window is that of `retrain`."""
    return {
        CAUSE: trigger.cause,
        REASON: trigger.reason,
        FAILED: ", ".join(trigger.failed),
        TRAINING_WINDOW: str(use_case.retrain.window or use_case.model.window),
    }


def tags_of_schedule(use_case: UseCase) -> dict[str, str]:
    """Tags of a run that the schedule asked for."""
    return {CAUSE: "schedule", REASON: f"the schedule '{use_case.model.schedule}' fired"}


def reasons_in(tags: Mapping[str, str]) -> dict[str, str]:
    """Those of a run's tags that say why it trains; none where a person started it."""
    return {tag: tags[tag] for tag in SHOWN_AS if tag in tags}


def reasons_shown(tags: Mapping[str, str]) -> dict[str, str]:
    """The same as metadata of a materialisation."""
    return {SHOWN_AS[tag]: value for tag, value in reasons_in(tags).items()}


def training_window(tags: Mapping[str, str]) -> Duration | None:
    """The length of the training set that a run asks for; None leaves it to the use case."""
    return Duration.parse(tags[TRAINING_WINDOW]) if TRAINING_WINDOW in tags else None


def training_sample(tags: Mapping[str, str]) -> Sample:
    """Which rows a run asks to be fitted on; by default all."""
    asked = asked_in(tags)
    return Sample(asked.get("sample"), asked.get("sample_rows"))
