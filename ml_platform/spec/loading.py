"""Use cases from their folders, or everything that is wrong with them."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import duckdb
from pydantic import ValidationError

from ml_platform.errors import Location, SpecError, SpecErrors
from ml_platform.spec.binding import bind
from ml_platform.spec.checks import check
from ml_platform.spec.declared import FILLED_IN
from ml_platform.spec.kept import JsonCache, states, way_of_deriving
from ml_platform.spec.kept_use_cases import files_of, keeping, restored
from ml_platform.spec.mistakes import Mistakes, spec_errors
from ml_platform.spec.queries import checking_database
from ml_platform.spec.use_case import SPEC_FILE, UseCase, digest
from ml_platform.spec.values import unknown
from ml_platform.spec.yaml_text import YamlText


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


def load_use_cases(
    root: Path, databases: Collection[str] | None = None, kept: Path | None = None
) -> Loaded:
    """Read every use case below a folder; a broken one never takes the others down.

    databases: those that sources may have tables in; by default they are not checked.
    kept: where to keep what is found, and to look for what was found of files that have not
    changed since; see `ml_platform.spec.kept.JsonCache`. By default nowhere.
    """
    loaded = Loaded()
    found: dict[str, list[UseCase]] = {}
    with _Loader.opened(databases, kept) as loader:
        for folder in sorted(path for path in root.glob("[!._]*") if path.is_dir()):
            try:
                use_case = loader.load(folder)
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


def require_use_case(
    root: Path, name: str, databases: Collection[str] | None = None, kept: Path | None = None
) -> UseCase:
    """As `load_use_cases(…).require(name)`, without reading what is not needed."""
    folder = root / name
    if name[:1] not in {"", ".", "_"} and folder.is_dir():
        # The folder that is called like it has the name, whoever else claims it.
        with suppress(SpecErrors):
            use_case = load_use_case(folder, databases, kept)
            if use_case.name == name:
                return use_case
    return load_use_cases(root, databases, kept).require(name)


def load_use_case(
    folder: Path, databases: Collection[str] | None = None, kept: Path | None = None
) -> UseCase:
    """Read one use case; SpecErrors lists every mistake that is found in it."""
    with _Loader.opened(databases, kept) as loader:
        return loader.load(folder)


class _Loader:
    """Loads use cases, one after the other; a database to check queries in is opened if needed."""

    def __init__(
        self, databases: Collection[str] | None, kept: Path | None, stack: ExitStack
    ) -> None:
        self._databases, self._stack = databases, stack
        self._kept = JsonCache(kept) if kept else None

    @classmethod
    @contextmanager
    def opened(cls, databases: Collection[str] | None, kept: Path | None) -> Iterator["_Loader"]:
        with ExitStack() as stack:
            yield cls(databases, kept, stack)

    def load(self, folder: Path) -> UseCase:
        """The use case of a folder; SpecErrors lists every mistake that is found in it."""
        if self._kept is None:
            return self._bound(*_declared(folder))
        databases = None if self._databases is None else sorted(self._databases)
        source = digest(way_of_deriving(), str(folder.resolve()), databases)
        held = restored(folder, self._kept.read(folder.name, source))
        return held or self._derived(self._kept, folder, source)

    def _derived(self, kept: JsonCache, folder: Path, source: str) -> UseCase:
        """The use case, derived from its files, and kept from now on."""
        spec = states(folder, [SPEC_FILE])
        declared, mistakes = _declared(folder)
        read = files_of(declared)
        before = states(folder, read)
        bound = self._bound(declared, mistakes)
        # What changed meanwhile may have been read as it was before, or as it is now.
        if spec and before and {**before, **spec} == states(folder, read):
            kept.write(folder.name, source, keeping(declared, bound, before))
        return bound

    def _bound(self, declared: UseCase, mistakes: Mistakes) -> UseCase:
        check(declared, mistakes, self._databases)
        return bind(declared, mistakes, self._checked_in)

    @cached_property
    def _checked_in(self) -> duckdb.DuckDBPyConnection:
        return self._stack.enter_context(closing(checking_database()))


def _declared(folder: Path) -> tuple[UseCase, Mistakes]:
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
    return declared, Mistakes(folder, text)


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
