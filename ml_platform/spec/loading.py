"""Use cases from their folders, or everything that is wrong with them."""

from collections.abc import Collection
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from pydantic import ValidationError

from ml_platform.errors import Location, SpecError, SpecErrors
from ml_platform.spec.binding import bind
from ml_platform.spec.checks import check
from ml_platform.spec.declared import FILLED_IN
from ml_platform.spec.mistakes import Mistakes, spec_errors
from ml_platform.spec.queries import checking_database
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import unknown
from ml_platform.spec.yaml_text import YamlText

SPEC_FILE = "use_case.yaml"


@dataclass(frozen=True)
class Loaded:
    """What a folder of use cases holds: the sound ones, and what is wrong with the others."""

    use_cases: dict[str, UseCase] = field(default_factory=dict)
    """By name."""
    broken: dict[str, SpecErrors] = field(default_factory=dict)
    """By folder, since the name may be what is wrong."""

    def require(self, name: str) -> UseCase:
        """The use case of a name; SpecErrors where it is broken, SpecError where there is none."""
        if name in self.use_cases:
            return self.use_cases[name]
        for folder, errors in self.broken.items():
            if name in {folder, errors.use_case}:
                raise errors
        known = [*self.use_cases, *self.broken]
        raise SpecError(Location(Path(name)), "", unknown("use case", name, known))


def load_use_cases(root: Path, databases: Collection[str] | None = None) -> Loaded:
    """Read every use case below a folder; a broken one never takes the others down.

    databases: those that sources may have tables in; by default they are not checked.
    """
    loaded = Loaded()
    found: dict[str, list[UseCase]] = {}
    with closing(checking_database()) as checked_in:
        for folder in sorted(path for path in root.glob("[!._]*") if path.is_dir()):
            try:
                use_case = _load(folder, databases, checked_in)
            except SpecErrors as errors:
                loaded.broken[folder.name] = errors
            else:
                found.setdefault(use_case.name, []).append(use_case)
    for name, namesakes in found.items():
        # The folder that is called like it was there first; the copy has to be renamed.
        rightful = [case for case in namesakes if case.folder.name == name] or namesakes[:1]
        loaded.use_cases[name] = rightful[0]
        for case in namesakes:
            if case is not rightful[0]:
                loaded.broken[case.folder.name] = _taken(case, rightful[0])
    return loaded


def require_use_case(root: Path, name: str, databases: Collection[str] | None = None) -> UseCase:
    """As `load_use_cases(root, databases).require(name)`, without reading what is not needed."""
    folder = root / name
    if name[:1] not in {"", ".", "_"} and folder.is_dir():
        # The folder that is called like it has the name, whoever else claims it.
        with suppress(SpecErrors):
            use_case = load_use_case(folder, databases)
            if use_case.name == name:
                return use_case
    return load_use_cases(root, databases).require(name)


def load_use_case(folder: Path, databases: Collection[str] | None = None) -> UseCase:
    """Read one use case; SpecErrors lists every mistake that is found in it."""
    with closing(checking_database()) as checked_in:
        return _load(folder, databases, checked_in)


def _load(
    folder: Path, databases: Collection[str] | None, checked_in: duckdb.DuckDBPyConnection
) -> UseCase:
    try:
        text = YamlText(_spec_file(folder))
    except SpecError as error:
        raise SpecErrors(folder.name, (error,)) from error
    if not isinstance(text.values, dict):
        what = "is empty" if text.values is None else "is not a mapping"
        problem = f"{what}; it should have keys such as description, partitions, sources"
        raise SpecErrors(folder.name, (SpecError(text.locate(()), "", problem),))
    values = {"name": folder.name, **text.values, FILLED_IN: folder}
    try:
        declared = UseCase.model_validate(values)
    except ValidationError as error:
        raise SpecErrors(folder.name, spec_errors(text, error)) from None
    mistakes = Mistakes(folder, text)
    check(declared, mistakes, databases)
    return bind(declared, mistakes, checked_in)


def _spec_file(folder: Path) -> Path:
    file = folder / SPEC_FILE
    if not file.is_file():
        others = sorted(path.name for path in folder.glob("*.y*ml"))
        hint = f"; rename {others[0]}" if others else ""
        raise SpecError(Location(file), "", f"there is no such file{hint}")
    return file


def _taken(case: UseCase, other: UseCase) -> SpecErrors:
    text = YamlText(case.folder / SPEC_FILE)
    problem = f"'{case.name}' is the name of {other.folder} already; give one of them another"
    return SpecErrors(case.folder.name, (SpecError(text.locate(("name",)), "name", problem),))
