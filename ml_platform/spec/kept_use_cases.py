"""A use case that was found to be sound, as JSON and back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from ml_platform.spec.declared import FILLED_IN, Declared
from ml_platform.spec.kept import FileState, states
from ml_platform.spec.logged import logged_sources_added
from ml_platform.spec.use_case import SPEC_FILE, UseCase

D = TypeVar("D", bound=Declared)


def files_of(use_case: UseCase) -> tuple[str, ...]:
    """Names of the files in a use case's folder that are read to load it."""
    named = (
        source.python.partition(":")[0] for source in use_case.sources.values() if source.python
    )
    return tuple(
        dict.fromkeys(
            (
                SPEC_FILE,
                *(view.sql or f"features/{name}.sql" for name, view in use_case.features.items()),
                use_case.label.sql,
                use_case.model_file,
                *(f"{name}.py" for name in named),
            )
        )
    )


def keeping(declared: UseCase, bound: UseCase, files: Mapping[str, FileState]) -> dict[str, Any]:
    """What `restored` makes the bound use case of. files: those that it was read from."""
    return {
        "files": {name: state.content for name, state in files.items()},
        "spec": declared.model_dump(mode="json", exclude_unset=True),
        "examples": _filled_in(bound.examples),
        "label": _filled_in(bound.label),
        "features": {name: _filled_in(view) for name, view in bound.features.items()},
        "publish": {name: _filled_in(each) for name, each in bound.publish.items()},
    }


def restored(folder: Path, held: Any) -> UseCase | None:
    """The use case, where its files are as they were; None where not, or where nothing was held."""
    if held is None:
        return None
    found = states(folder, held["files"])
    if found is None or {name: state.content for name, state in found.items()} != held["files"]:
        return None
    try:
        declared = UseCase.model_validate({**held["spec"], FILLED_IN: folder})
    except ValidationError:
        return None
    filled = {
        "examples": _refilled(declared.examples, held["examples"]),
        "label": _refilled(declared.label, held["label"]),
        "features": {n: _refilled(v, held["features"][n]) for n, v in declared.features.items()},
        "publish": {n: _refilled(p, held["publish"][n]) for n, p in declared.publish.items()},
    }
    return logged_sources_added(declared.model_copy(update=filled))


def _filled_in(part: Declared) -> dict[str, Any]:
    """What the loader has filled in of a part of a use case."""
    fields = type(part).model_fields.items()
    return {name: getattr(part, name) for name, f in fields if f.validation_alias == FILLED_IN}


def _refilled(part: D, values: Mapping[str, Any]) -> D:
    as_before = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return part.model_copy(update=as_before)
