"""Schemas that follow from a use case and its model: what a value of a column can be."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_platform.features import needed_columns
from ml_platform.registry import ModelVersion
from ml_platform.serving.calls import PREDICTION_ID
from ml_platform.serving.http.endpoints import PathSubject, Schema
from ml_platform.spec.lineage import renamed_columns
from ml_platform.spec.queries import is_numeric
from ml_platform.spec.use_case import UseCase

WRITTEN: Mapping[str, Schema] = {
    "BOOLEAN": {
        "type": ["boolean", "integer", "string", "null"],
        "minimum": 0,
        "maximum": 1,
        "pattern": "^(true|false|[01])$",
    },
    "VARCHAR": {
        "type": ["string", "number", "boolean", "null"],
        "description": "Text; a number or truth value counts as its text.",
    },
}
BITS = {"TINYINT": 8, "SMALLINT": 16, "INTEGER": 32, "BIGINT": 64, "HUGEINT": 128}
FRACTION_DIGITS = {"DOUBLE": 308, "FLOAT": 38, "REAL": 38}
DECIMAL = re.compile(r"DECIMAL\(([0-9]+), ?([0-9]+)\)")
LABELS: Mapping[str, Schema] = {
    # 0 and 1 will do as well.
    "binary": {"type": ["boolean", "integer"], "minimum": 0, "maximum": 1},
    "multiclass": {"type": "string", "minLength": 1},
    "regression": {"type": "number"},
}
"""A label, by the task."""
TEXT_TOO = "A number, or its text."
PREDICTION_PATTERN = "^" + re.sub(r"\?P<\w+>", "", PREDICTION_ID.pattern) + "$"
"""Without names of groups, which are written otherwise in JavaScript."""
TIME: Schema = {"type": ["string", "null"], "format": "date-time"}


def sent_value(kind: str) -> dict[str, Any]:
    """A value of a column of a source, by its DuckDB type: as it may stand in a landing file.

    So a number may come as its text; null stands for what is missing.
    """
    for begin, form in (("TIMESTAMP", "date-time"), ("DATE", "date")):
        if kind.startswith(begin):
            return {"type": ["string", "null"], "format": form}
    if decimal := DECIMAL.fullmatch(kind):
        digits = int(decimal[1]) - int(decimal[2])
        bounds = {"exclusiveMinimum": -(10**digits), "exclusiveMaximum": 10**digits}
        return {**_fraction(digits), **bounds}
    if kind in FRACTION_DIGITS:
        return _fraction(FRACTION_DIGITS[kind])
    if kind.removeprefix("U") in BITS:
        return _whole(kind)
    return dict(WRITTEN.get(kind, {"type": ["string", "null"]}))


def _fraction(digits: int) -> dict[str, Any]:
    """A number with so many digits before its point at most."""
    whole = f"[0-9]{{1,{digits}}}" if digits else "0"
    pattern = rf"^-?{whole}(\.[0-9]+)?$"
    return {"type": ["number", "string", "null"], "pattern": pattern, "description": TEXT_TOO}


def _whole(kind: str) -> dict[str, Any]:
    signed, bits = not kind.startswith("U"), BITS[kind.removeprefix("U")]
    digits = len(str(2 ** (bits - 1))) - 1
    return {
        "type": ["integer", "string", "null"],
        "pattern": rf"^{'-?' * signed}[0-9]{{1,{digits}}}(\.0+)?$",
        "minimum": -(2 ** (bits - 1)) if signed else 0,
        "maximum": 2 ** (bits - 1) - 1 if signed else 2**bits - 1,
        "description": TEXT_TOO,
    }


def given_values(model: ModelVersion) -> dict[str, Schema]:
    """A value of each column of a model: null only where the fitted rows had gaps."""
    found: dict[str, Schema] = {}
    for name, kind in model.columns.items():
        # Truth values are numbers to a model.
        types = ["number", "boolean"] if is_numeric(kind) else ["string"]
        found[name] = {"type": [*types, "null"] if model.seen[name].missing else types}
    return found


def rows(columns: Mapping[str, Schema], *optional: str) -> dict[str, Any]:
    """Rows, each an object that has every column but the optional ones and no other."""
    row = {
        "type": "object",
        "required": [name for name in columns if name not in optional],
        "properties": dict(columns),
        "additionalProperties": False,
    }
    return {"type": "array", "items": row, "minItems": 1}


def sent_rows(case: UseCase, model: ModelVersion) -> dict[str, Any]:
    """Rows by key: null is no value of a column that the fitted rows always had one of."""
    event_time = case.sources[case.examples.source].event_time
    columns = {name: sent_value(kind) for name, kind in needed_columns(case).items()}
    for name in _never_missing(case, model) & columns.keys():
        kinds = [kind for kind in columns[name]["type"] if kind != "null"]
        columns[name] = {**columns[name], "type": kinds}
    columns[event_time] = {**TIME, "description": "Now, where it is left out."}
    return rows(columns, event_time)


def _never_missing(case: UseCase, model: ModelVersion) -> set[str]:
    """Source columns that the model is given as they are, and has never met without a value."""
    selected = case.examples.columns
    sources = {item: item for item in selected} | renamed_columns(selected)
    always = (name for name, seen in model.seen.items() if not seen.missing)
    return {sources[name] for name in always if name in sources}


def listed(items: Schema) -> dict[str, Any]:
    """A list."""
    return {"type": "array", "items": items}


def about(subject: PathSubject) -> Schema:
    """The name of the use case, in the property `name`."""
    return {"name": {"const": subject.case.name}}


def only(schema: Schema, names: Iterable[str]) -> dict[str, Any]:
    """An object of some of the properties of another, of which the first is required."""
    first, *others = names
    kept = {name: schema["properties"][name] for name in (first, *others)}
    closed = {key: schema[key] for key in ("additionalProperties",) if key in schema}
    return {"type": "object", "required": [first], "properties": kept, **closed}
