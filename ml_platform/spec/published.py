"""What is wrong with pipelines that a use case publishes."""

from ml_platform.spec.locations import location
from ml_platform.spec.mistakes import Mistakes
from ml_platform.spec.pipelines import ALLOWED, Pipeline
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import unknown
from ml_platform.spec.yaml_text import PathInDocument


def check_pipelines(case: UseCase, mistakes: Mistakes) -> None:
    """Parameters that fit the kind of run, windows longer than the holdout, sources with files."""
    for name, pipeline in case.pipelines.items():
        path = ("pipelines", name, "parameters")
        for parameter in pipeline.parameters.given:
            if parameter not in ALLOWED[pipeline.run]:
                possible = ", ".join(sorted(ALLOWED[pipeline.run]))
                problem = f"is none of `run: {pipeline.run}`, which has {possible}; remove it"
                mistakes.add((*path, parameter), problem)
        if pipeline.ingest and pipeline.run == "train":
            problem = "is about a range, and a training has a cutoff; remove it"
            mistakes.add(("pipelines", name, "ingest"), problem)
        _check_window(case, path, pipeline, mistakes)
        _check_locations(case, path, pipeline, mistakes)


def _check_window(
    case: UseCase, path: PathInDocument, pipeline: Pipeline, mistakes: Mistakes
) -> None:
    bounds, start, zone = pipeline.parameters.window, case.calendar.start, case.calendar.timezone
    if bounds is None:
        return
    for key in ("least", "most", "default"):
        length = getattr(bounds, key)
        if length and length.before(start, zone) >= case.model.holdout.before(start, zone):
            problem = f"'{length}' is no longer than the holdout of '{case.model.holdout}'"
            mistakes.add((*path, "window", key), f"{problem}, so that nothing is left to train on")


def _check_locations(
    case: UseCase, path: PathInDocument, pipeline: Pipeline, mistakes: Mistakes
) -> None:
    for source, folders in pipeline.parameters.locations.items():
        here = (*path, "locations", source)
        if source not in case.sources:
            mistakes.add(here, unknown("source", source, case.sources))
        elif case.sources[source].rows_of:
            mistakes.add(here, f"'{source}' has no files whose folder could be named; remove it")
        for index, folder in enumerate(folders):
            try:
                location(folder)
            except ValueError as error:
                mistakes.add((*here, index), f"'{folder}': {error}")
