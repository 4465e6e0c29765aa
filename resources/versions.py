"""Which version of its pipelines a code location runs, and whether a run is of that version."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from ml_platform.orchestrator.parameters import KEPT, PIPELINES, VERSION
from ml_platform.settings import Settings
from ml_platform.spec.code import DIRTY, CodeState, code_state
from ml_platform.spec.use_case import UseCase


def version_of(settings: Settings) -> str | None:
    """Commit of the use cases as they are on disk; `-dirty` where files differ from it."""
    if settings.code_commit:
        return settings.code_commit
    state = code_state(settings.use_cases)
    return state.version if state else None


@cache
def _loaded(folder: Path) -> CodeState | None:
    """Where a folder was when this process loaded it; git is asked once for all its use cases."""
    return code_state(folder)


def version_metadata(use_case: UseCase, settings: Settings) -> dict[str, Any]:
    """What the model's asset says of its code location: version and pipelines."""
    state = _loaded(settings.use_cases.resolve())
    version = settings.code_commit or (state.version if state else "unknown")
    published = {
        name: pipeline.model_dump(mode="json")
        for name, pipeline in use_case.published_pipelines.items()
    }
    return {
        VERSION: version,
        PIPELINES: json.dumps(published, sort_keys=True),
    }


def marked_as_kept(asset: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """An asset of a code location that is there for its version alone; it follows nothing."""
    return asset.map_asset_specs(
        lambda spec: spec.merge_attributes(tags={KEPT: "true"}).replace_attributes(
            automation_condition=None
        )
    )


def require_version(settings: Settings, tags: Mapping[str, str]) -> None:
    """Fail a run that was asked of a version which the code on disk no longer is."""
    if (asked := tags.get(VERSION)) is None:
        return
    found = version_of(settings)
    # Files that git does not know come and go, and make no other version.
    if (found or "").removesuffix(DIRTY) != asked.removesuffix(DIRTY):
        raise dg.Failure(
            f"version {asked} was asked for, and the code is at {found or 'no commit'} now; "
            "reload the code location, then start the pipeline again",
            allow_retries=False,
        )
