"""MLflow's scoring protocol: what `mlflow models serve` answers, for the same clients."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from msgspec import UNSET, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ml_platform.errors import RequestRefused, UnsupportedMedia
from ml_platform.registry import ModelVersion
from ml_platform.registry.prediction import POSITIVE
from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.draining import require_not_draining
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import parse
from ml_platform.serving.http.calls import calling, named, read_rows
from ml_platform.serving.http.endpoints import (
    JSON,
    TEXT,
    Answer,
    Body,
    Need,
    PathSubject,
    Schema,
    endpoint,
)
from ml_platform.serving.http.problems import OF_PREDICTIONS, said_of
from ml_platform.serving.http.samples import model_row
from ml_platform.serving.http.schemas import given_values, listed, rows
from ml_platform.serving.inputs import Values
from ml_platform.serving.service import Service

TAG = "mlflow"
FORMATS = ("dataframe_records", "dataframe_split", "instances", "inputs")


class Split(Struct, frozen=True):
    """Rows as lists of values, in the order of `columns`; by default in the model's."""

    data: list[list[Any]]
    columns: list[str] | UnsetType = UNSET


class InvocationRequest(Struct, frozen=True):
    """Rows in exactly one of the protocol's formats."""

    dataframe_records: list[dict[str, Any]] | UnsetType = UNSET
    dataframe_split: Split | UnsetType = UNSET
    instances: list[Any] | dict[str, Any] | UnsetType = UNSET
    inputs: list[Any] | dict[str, Any] | UnsetType = UNSET


class Invoked(Struct, frozen=True):
    """A prediction for each row; of classes the probability of each."""

    predictions: list[Any]


def _asked(subject: PathSubject) -> Schema:
    columns = given_values(subject.answering)
    names, size = list(columns), len(columns)
    records, values = rows(columns), list(columns.values())
    in_order = _lists({"prefixItems": values}, size)
    split = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "columns": {
                "type": "array",
                "items": {"enum": names},
                "minItems": size,
                "maxItems": size,
            },
            "data": _lists({"items": {"type": ["string", "number", "boolean", "null"]}}, size),
        },
    }
    by_column = {
        "type": "object", "required": names, "additionalProperties": False,
        "properties": {name: {"anyOf": _columns(value)} for name, value in columns.items()},
    }  # fmt: skip
    anything = {"anyOf": [records, in_order, by_column]}
    return {
        "dataframe_records": records,
        "dataframe_split": split,
        "instances": anything,
        "inputs": anything,
    }


def _columns(value: Schema) -> list[Schema]:
    """A column: one value for its only row, values, or values each in a list of its own."""
    alone = {"type": "array", "items": value, "minItems": 1, "maxItems": 1}
    return [value, *({"type": "array", "items": each, "minItems": 1} for each in (value, alone))]


def _lists(row: Schema, size: int) -> Schema:
    """Rows as lists of so many values."""
    return {
        "type": "array", "minItems": 1,
        "items": {"type": "array", "minItems": size, "maxItems": size, **row},
    }  # fmt: skip


def _answered(subject: PathSubject) -> Schema:
    if subject.case.label.task == "regression":
        return {"predictions": listed({"type": "number"})}
    classes = subject.answering.classes
    probabilities = {
        **listed({"type": "number"}), "minItems": len(classes), "maxItems": len(classes),
        "description": f"Probabilities of {', '.join(classes)}.",
    }  # fmt: skip
    return {"predictions": listed(probabilities)}


def _example(subject: PathSubject) -> Any:
    return {"dataframe_records": [model_row(subject.answering)]}


@dataclass(frozen=True)
class Invocations:
    """Handlers of MLflow's paths."""

    service: Service

    @endpoint(
        "GET", "/ping", "/mlflow/{model}/ping",
        needs=Need("read"),
        summary="Whether it can be asked",
        tag=TAG,
        answers={200: Answer(str, media=(TEXT,))},
        problems=said_of(404, 503),
    )  # fmt: skip
    async def ping(self, request: Request) -> Response:
        """Whether the model can be asked."""
        self.service.live.model(self._name(request))
        require_not_draining()
        return PlainTextResponse("\n")

    # Of all of MLflow's paths this one has nothing to do with a model.
    @endpoint(
        "GET",
        "/version",
        needs=Need("read", "some"),
        summary="MLflow's version",
        tag=TAG,
        answers={200: Answer(str, media=(TEXT,))},
    )
    @endpoint(
        "GET", "/mlflow/{model}/version",
        needs=Need("read"),
        summary="MLflow's version",
        tag=TAG,
        answers={200: Answer(str, media=(TEXT,))},
    )  # fmt: skip
    async def version(self, request: Request) -> Response:
        """MLflow's version, as its clients ask for it."""
        from mlflow.version import VERSION

        return PlainTextResponse(VERSION)

    @endpoint(
        # The last one is as MLflow's client of deployments asks.
        "POST", "/invocations", "/mlflow/{model}/invocations", "/endpoints/{model}/invocations",
        needs=Need("predict"),
        summary="Predict, as MLflow's scoring server does",
        tag=TAG,
        body=Body(InvocationRequest, _example, _asked, tuple((name,) for name in FORMATS)),
        answers={
            200: Answer(
                Invoked, narrow=_answered, headers=("X-Model-Version", "X-Prediction-Id")
            )
        },
        problems=OF_PREDICTIONS,
    )  # fmt: skip
    async def invoke(self, request: Request) -> Response:
        """Predict."""
        name = self._name(request)
        with calling(self.service, "mlflow", name) as call:
            kind = request.headers.get("content-type", JSON).split(";")[0].strip()
            if kind != JSON:
                raise UnsupportedMedia(f"content type '{kind[:60]}' is not taken; send {JSON}")
            model = self.service.live.model(name)
            asked = parse(await read_rows(self.service, request), InvocationRequest)
            answer = await self.service.predict(name, read_columns(asked, model), call=call)
        headers = {"X-Model-Version": str(answer.model.version), **named(answer)}
        return as_json(Invoked(_predictions(answer)), headers=headers)

    def _name(self, request: Request) -> str:
        if "model" in request.path_params:
            return str(request.path_params["model"])
        names = self.service.live.names
        if len(names) != 1:
            raise RequestRefused(
                f"{len(names)} use cases are served here; name one: /mlflow/<use case>/invocations"
            )
        return names[0]


def read_columns(asked: InvocationRequest, model: ModelVersion) -> Mapping[str, Values]:
    """Values by column from any of the protocol's four formats; RequestRefused."""
    given = [name for name in FORMATS if getattr(asked, name) is not UNSET]
    if len(given) != 1:
        raise RequestRefused(f"the body should have one of {', '.join(FORMATS)}")
    match getattr(asked, given[0]):
        case Split() as split:
            return _from_split(split, model)
        case dict() as lists:
            return _from_lists(lists)
        case [list(), *_] as values:
            return _from_split(_split(given[0], values), model)
        case records:
            return _from_records(records)


def _split(name: str, values: list[Any]) -> Split:
    for number, row in enumerate(values):
        if not isinstance(row, list):
            raise RequestRefused(f"`{name}[{number}]`: expected a list as the first row is one")
    return Split(values)


def _from_split(content: Split, model: ModelVersion) -> dict[str, Values]:
    names = list(model.columns) if content.columns is UNSET else content.columns
    for name, count in Counter(names).items():
        if count > 1:
            raise RequestRefused("is there twice", name[:60])
    for number, row in enumerate(content.data):
        if len(row) != len(names):
            raise RequestRefused(f"row {number} is not a list of {len(names)} values")
    return {name: [row[i] for row in content.data] for i, name in enumerate(names)}


def _from_records(content: list[Any]) -> dict[str, Values]:
    if not all(isinstance(row, dict) for row in content):
        raise RequestRefused("the rows should be a list of objects, one for each row")
    if not content:
        return {}
    first = list(content[0])
    # Nearly always, and many times faster for hundreds of rows.
    if all(list(row) == first for row in content):
        columns = zip(*map(dict.values, content), strict=True)
        return dict(zip(first, map(list, columns), strict=True))
    names = list(dict.fromkeys(name for row in content for name in row))
    for number, row in enumerate(content):
        for name in names:
            if name not in row:
                raise RequestRefused(f"is missing in row {number}", name[:60])
    return {name: [row[name] for row in content] for name in names}


def _from_lists(content: Mapping[str, Any]) -> dict[str, Values]:
    # A column as lists of one value each is what MLflow's own clients make of a data frame.
    columns: dict[str, Values] = {}
    for name, values in content.items():
        if not isinstance(values, list):
            columns[name] = [values]
        elif values and all(isinstance(value, list) and len(value) == 1 for value in values):
            columns[name] = [value[0] for value in values]
        else:
            columns[name] = values
    return columns


def _predictions(answer: Predictions) -> list[Any]:
    match answer.use_case.label.task:
        case "regression":
            return list(answer.columns["predicted"].tolist())
        case "binary":
            positive = answer.columns["probability"]
            in_order = [
                positive if name == POSITIVE else 1 - positive for name in answer.model.classes
            ]
            return list(np.column_stack(in_order).tolist())
        case "multiclass":
            classes = answer.model.classes
            return [[row[name] for name in classes] for row in answer.columns["probabilities"]]
