"""What a run of a published pipeline was asked for: tags, which people see and the run reads."""

import json
from collections.abc import Mapping
from typing import Any

PIPELINE = "ml_platform/pipeline"
"""Name of the pipeline."""
VERSION = "ml_platform/version"
"""Commit of the code that is to run."""
PARAMETERS = "ml_platform/parameters"
"""What was asked for, defaults included, as JSON."""
TRAINING_WINDOW = "ml_platform/training_window"
"""Length of the training set; of runs that nobody asked for at a URL, too."""
KEPT = "ml_platform/kept_version"
"""Tag of the assets of a code location that is there for its version alone."""
PIPELINES = "ml_platform/pipelines"
"""Metadata of a model's asset: the pipelines that its code location declares, as JSON."""


def tags_of_pipeline(name: str, version: str | None, asked: Mapping[str, Any]) -> dict[str, str]:
    """Tags of a run; asked: parameters by name, as they stand in the request."""
    window = {TRAINING_WINDOW: asked["window"]} if "window" in asked else {}
    known = {} if version is None else {VERSION: version}
    return {PIPELINE: name, PARAMETERS: json.dumps(asked, sort_keys=True), **known, **window}


def asked_in(tags: Mapping[str, str]) -> dict[str, Any]:
    """Parameters of a run by its tags; none where it is no run of a pipeline."""
    found = json.loads(tags.get(PARAMETERS, "{}"))
    return found if isinstance(found, dict) else {}


def described_by(tags: Mapping[str, str]) -> dict[str, str]:
    """What commits to the lake say of the pipeline that they are of."""
    names = {PIPELINE: "pipeline", VERSION: "version", PARAMETERS: "parameters"}
    return {name: tags[tag] for tag, name in names.items() if tag in tags}
