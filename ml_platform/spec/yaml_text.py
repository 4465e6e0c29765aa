"""YAML read twice over: as plain values, and as the lines they stand on."""

from datetime import date
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from ml_platform.errors import Location, SpecError

PathInDocument = tuple[str | int, ...]
BOOLEAN = "tag:yaml.org,2002:bool"
TIMESTAMP = "tag:yaml.org,2002:timestamp"


class _Yaml12Loader(yaml.SafeLoader):
    """YAML 1.1 reads the keys `on` and `no` as booleans; 1.2 and people do not."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [
        resolver for resolver in resolvers if resolver[0] != BOOLEAN or first.lower() in {"t", "f"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _construct_time(loader: _Yaml12Loader, node: yaml.ScalarNode) -> date | str:
    try:
        return loader.construct_yaml_timestamp(node)
    except ValueError:
        # The thirtieth of February: left as text, for whoever checks the value to complain.
        return str(node.value)


_Yaml12Loader.add_constructor(TIMESTAMP, _construct_time)


class _QuickLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The same by libyaml, ten times as fast, whose words for mistakes are no help to people."""

    yaml_implicit_resolvers = _Yaml12Loader.yaml_implicit_resolvers
    yaml_constructors = _Yaml12Loader.yaml_constructors


_Loader: TypeAlias = type[_Yaml12Loader] | type[_QuickLoader]


def _explain(error: yaml.MarkedYAMLError) -> tuple[int | None, str]:
    problem = str(error.problem)
    marks = [mark for mark in (error.problem_mark, error.context_mark) if mark]
    # What is never closed is found at the end of the file, but begins where the context does.
    mark = marks[-1 if "end of stream" in problem else 0] if marks else None
    if "'\\t'" in problem:
        problem = "a tab; indent with spaces"
    elif error.context:
        begun = f" that begins in line {error.context_mark.line + 1}" if error.context_mark else ""
        problem = f"{problem} {error.context}{begun}; look for a bracket, quote or indent"
    return (mark.line + 1 if mark else None), problem


class YamlText:
    """One YAML file: its values, and where each of them stands.

    Raises SpecError where it cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lines: dict[PathInDocument, int] = {}
        try:
            self.values = self._parse(file.read_text(encoding="utf-8-sig"))
        except yaml.MarkedYAMLError as error:
            line, problem = _explain(error)
            raise SpecError(Location(file, line), "", f"not YAML: {problem}") from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            problem = str(error).replace("\n", " ")
            raise SpecError(Location(file), "", f"not a text of YAML: {problem}") from error
        except OSError as error:
            raise SpecError(Location(file), "", f"cannot be read: {error.strerror}") from error

    def locate(self, path: PathInDocument) -> Location:
        """Where a value stands, or the closest thing around it that is there."""
        while path and path not in self._lines:
            path = path[:-1]
        return Location(self.file, self._lines.get(path, 1))

    def _parse(self, text: str) -> Any:
        try:
            return self._load(_QuickLoader, text)
        except yaml.YAMLError:
            self._lines.clear()
            return self._load(_Yaml12Loader, text)

    def _load(self, load: _Loader, text: str) -> Any:
        loader = load(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            self._index(node, (), ())
            return loader.construct_document(node)
        finally:
            loader.dispose()

    def _index(self, node: yaml.Node, path: PathInDocument, around: tuple[yaml.Node, ...]) -> None:
        if node in around:
            raise yaml.MarkedYAMLError(problem="it contains itself", problem_mark=node.start_mark)
        self._lines.setdefault(path, node.start_mark.line + 1)
        inside = (*around, node)
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                name, line = str(key.value), key.start_mark.line + 1
                if name in seen:
                    problem = f"key '{name}' is there twice, first in line {seen[name]}; keep one"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
                seen[name] = line
                self._lines[(*path, name)] = line
                self._index(value, (*path, name), inside)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._index(value, (*path, index), inside)
