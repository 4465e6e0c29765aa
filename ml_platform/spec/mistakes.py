"""Mistakes in a use case: collected, and said to the person who made them."""

from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from ml_platform.errors import Location, SpecError, SpecErrors
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.values import suggest
from ml_platform.spec.yaml_text import PathInDocument, YamlText

NOT_WHOLE = "{shown} should be a whole number"
NOT_A_NUMBER = "{shown} should be a number"
MESSAGES = {
    "string_too_short": "should not be empty",
    "string_too_long": "{shown} is longer than {max_length} letters",
    "too_short": "should not be empty",
    "greater_than": "{shown} should be more than {gt:g}",
    "greater_than_equal": "{shown} should be at least {ge:g}",
    "less_than": "{shown} should be less than {lt:g}",
    "less_than_equal": "{shown} should be at most {le:g}",
    "int_type": NOT_WHOLE,
    "int_parsing": NOT_WHOLE,
    "int_from_float": NOT_WHOLE,
    "float_type": NOT_A_NUMBER,
    "float_parsing": NOT_A_NUMBER,
    "finite_number": NOT_A_NUMBER,
    "tuple_type": "{shown} should be a list, such as [{example}]",
    "dict_type": "{shown} should be a mapping: names, each with keys of its own",
}


class Mistakes:
    """Those found so far in one use case."""

    def __init__(self, folder: Path, text: YamlText) -> None:
        self._folder = folder
        self._text = text
        self._errors: list[SpecError] = []

    def __len__(self) -> int:
        return len(self._errors)

    def add(self, path: PathInDocument, problem: str) -> None:
        """A mistake at a place in the YAML."""
        self._errors.append(SpecError(self._text.locate(path), dotted(path), problem))

    def add_in(self, file: Path, line: int | None, problem: str) -> None:
        """A mistake in another file."""
        self._errors.append(SpecError(Location(file, line), "", problem))

    def stop(self) -> None:
        """Raise SpecErrors if there are any."""
        if self._errors:
            raise SpecErrors(self._folder.name, tuple(self._errors))


def spec_errors(text: YamlText, error: ValidationError) -> tuple[SpecError, ...]:
    """What pydantic found, one error for each mistake, in the order of the file."""
    items = [(_path(item), item) for item in error.errors()]
    misspelt = {_closest(path) for path, item in items if item["type"] == "extra_forbidden"}
    found = [
        SpecError(text.locate(path), dotted(path), _message(path, item))
        for path, item in items
        # A misspelt key is one mistake, though the right key is missing as well.
        if not (item["type"] == "missing" and path in misspelt)
    ]
    return tuple(sorted(found, key=lambda mistake: mistake.location.line or 0))


def dotted(path: PathInDocument) -> str:
    """A path as people write it: `sources.flights.rules`; the line says which of the rules."""
    return ".".join(str(part) for part in path if isinstance(part, str))


def fields_at(path: PathInDocument) -> tuple[str, ...]:
    """The keys that exist at a place in the document."""
    model: type[BaseModel] = UseCase
    for part in path:
        field = model.model_fields.get(str(part))
        # What is no field is a name that somebody chose, of a source or a view.
        model = (field and _declared_in(field.annotation)) or model
    return tuple(name for name, field in model.model_fields.items() if not field.exclude)


def _declared_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_declared_in, get_args(annotation))), None)


def _path(item: Any) -> PathInDocument:
    return tuple(part for part in item["loc"] if part != "[key]")


def _closest(path: PathInDocument) -> PathInDocument:
    hint = suggest(str(path[-1]), fields_at(path[:-1]))
    return (*path[:-1], hint.split("'")[1]) if "'" in hint else path


def _message(path: PathInDocument, item: Any) -> str:
    kind, given, context = item["type"], item["input"], item.get("ctx", {})
    shown = _shown(given)
    if kind in MESSAGES:
        example = given if isinstance(given, str) else "…"
        return MESSAGES[kind].format(shown=shown, example=example, **context)
    match kind:
        case "extra_forbidden":
            message = f"unknown key{suggest(str(path[-1]), fields_at(path[:-1]))}"
        case "missing":
            message = f"is missing; add `{path[-1]}: …`"
        case "value_error":
            message = str(context["error"])
        case "literal_error" | "enum":
            options = str(context["expected"]).replace("'", "").replace(" or ", ", ").split(", ")
            message = f"{shown} should be one of {', '.join(options)}{_closest_of(given, options)}"
        case "string_pattern_mismatch" if path[-1] in {"build", "fit"}:
            message = f"{shown} should read like 'model:{path[-1]}': a file and a function in it"
        case "string_pattern_mismatch":
            message = f"{shown} should be lower case letters, digits and underscores"
            message += _as_name(given)
        case "string_type":
            is_scalar = given is not None and not isinstance(given, (dict, list))
            message = f"{shown} should be text" + (f"; quote it: '{given}'" if is_scalar else "")
        case "model_type" | "model_attributes_type":
            keys = ", ".join(fields_at(path)[:4])
            message = f"{shown} should be a mapping with keys such as {keys}"
        case _:
            message = f"{shown}: {item['msg'][:1].lower()}{item['msg'][1:]}"
    return message


def _shown(given: object) -> str:
    if given is None:
        return "nothing is here; this"
    return "this" if isinstance(given, (dict, list)) else f"'{given}'"


def _closest_of(given: object, options: list[str]) -> str:
    hint = suggest(str(given), options)
    return hint if "Did you mean" in hint else ""


def _as_name(given: object) -> str:
    name = "".join(c if c.isalnum() else "_" for c in str(given).lower()).strip("_")
    return f", such as '{name}'" if name[:1].isalpha() and name.isascii() else ""
