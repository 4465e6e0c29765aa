"""A use case whose sources land elsewhere than declared, for one run."""

import os
from collections.abc import Iterable, Mapping

from ml_platform.errors import LandingError
from ml_platform.settings import Settings
from ml_platform.spec.locations import files_at, is_below, location
from ml_platform.spec.use_case import UseCase


def permitted(case: UseCase, source: str) -> tuple[str, ...]:
    """Folders, in their one spelling, below which some pipeline lets callers name a location."""
    declared = [pipeline.parameters.locations for pipeline in case.pipelines.values()]
    return tuple(sorted({location(f) for each in declared for f in each.get(source, ())}))


def check_location(folder: str, roots: Iterable[str]) -> str:
    """A folder in its one spelling; ValueError where it is not below any of `roots`."""
    found = location(folder)
    allowed = tuple(roots)
    if not any(is_below(found, root) for root in allowed):
        said = ", ".join(allowed) or "none"
        raise ValueError(f"'{folder}' is not one of the declared folders, nor below one: {said}")
    return found


def located(case: UseCase, locations: Mapping[str, str], settings: Settings) -> UseCase:
    """The use case with the files of some sources looked for in other folders.

    locations: by source, a folder or URL; a relative one is below the use case's landing folder.
    Which files in it are read stays as declared. Raises LandingError where no pipeline of the
    use case permits a location, or where a link leads from it to somewhere else: whoever can start
    a run could read any file with it.
    """
    sources = dict(case.sources)
    for name, folder in locations.items():
        if name not in sources:
            raise LandingError(f"{case.name} has no source '{name}' that could land in {folder}")
        try:
            found = check_location(folder, permitted(case, name))
        except ValueError as error:
            raise LandingError(f"{case.name}/{name}: {error}") from None
        _refuse_links(case, name, found, settings)
        files = files_at(sources[name].files, found)
        sources[name] = sources[name].model_copy(update={"files": files})
    return case.model_copy(update={"sources": sources})


def _refuse_links(case: UseCase, name: str, folder: str, settings: Settings) -> None:
    path = folder
    if not folder.startswith("/") and "://" not in folder:
        path = f"{settings.landing_uri.rstrip('/')}/{case.name}/{folder}"
    if "://" in path:
        return
    # The declared folders themselves may be links: who declares them has decided that.
    root = max((r for r in permitted(case, name) if is_below(folder, r)), key=len)
    whole = path.removesuffix(folder) + root
    if not is_below(os.path.realpath(path), os.path.realpath(whole)):
        raise LandingError(f"{case.name}/{name}: a link leads from {folder} to another folder")
