"""MLflow's scoring protocol: what `mlflow models serve` answers, for the same clients."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ml_platform.errors import RequestRefused, UnsupportedMedia
from ml_platform.registry import ModelVersion
from ml_platform.registry.prediction import POSITIVE
from ml_platform.serving.draining import require_not_draining
from ml_platform.serving.http.bodies import parse_json, read_body
from ml_platform.serving.http.calls import calling, named
from ml_platform.serving.inputs import Values
from ml_platform.serving.service import Service
from ml_platform.serving.together import Answer

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@dataclass(frozen=True)
class Invocations:
    """Handlers of MLflow's paths."""

    service: Service

    async def ping(self, request: Request) -> Response:
        """Whether the model can be asked."""
        self.service.live.model(self._name(request))
        require_not_draining()
        return PlainTextResponse("\n")

    async def version(self, request: Request) -> Response:
        """MLflow's version, as its clients ask for it."""
        from mlflow.version import VERSION

        return PlainTextResponse(VERSION)

    async def invoke(self, request: Request) -> Response:
        """Predict."""
        name = self._name(request)
        with calling(self.service, "mlflow", name) as call:
            kind = request.headers.get("content-type", "application/json").split(";")[0].strip()
            if kind != "application/json":
                raise UnsupportedMedia(
                    f"content type '{kind[:60]}' is not taken; send application/json"
                )
            document = parse_json(await read_body(request, self.service.settings))
            model = self.service.live.model(name)
            answer = await self.service.predict(name, read_columns(document, model), call=call)
        return Response(
            msgspec.json.encode({"predictions": _predictions(answer)}),
            headers={"X-Model-Version": str(answer.model.version), **named(answer)},
            media_type="application/json",
        )

    def _name(self, request: Request) -> str:
        if "model" in request.path_params:
            return str(request.path_params["model"])
        names = self.service.live.names
        if len(names) != 1:
            raise RequestRefused(
                f"{len(names)} use cases are served here; name one: /mlflow/<use case>/invocations"
            )
        return names[0]


def read_columns(document: Any, model: ModelVersion) -> Mapping[str, Values]:
    """Values by column from any of the protocol's four formats; RequestRefused."""
    if not isinstance(document, dict):
        raise RequestRefused(f"the body should be an object with one of {', '.join(FORMATS)}")
    given = [name for name in FORMATS if name in document]
    if len(given) != 1:
        raise RequestRefused(f"the body should have one of {', '.join(FORMATS)}")
    content = document[given[0]]
    match given[0]:
        case "dataframe_split":
            return _from_split(content, model)
        case "dataframe_records":
            return _from_records(content)
        case _ if isinstance(content, dict):
            return _from_lists(content)
        case _ if isinstance(content, list) and content and isinstance(content[0], list):
            return _from_split({"data": content}, model)
        case _:
            return _from_records(content)


def _from_split(content: Any, model: ModelVersion) -> dict[str, Values]:
    if not isinstance(content, dict) or not isinstance(content.get("data"), list):
        raise RequestRefused("dataframe_split is an object with `columns` and `data`")
    names = content.get("columns", list(model.columns))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RequestRefused("`columns` should be a list of names")
    for name, count in Counter(names).items():
        if count > 1:
            raise RequestRefused("is there twice", name[:60])
    for number, row in enumerate(content["data"]):
        if not isinstance(row, list) or len(row) != len(names):
            raise RequestRefused(f"row {number} is not a list of {len(names)} values")
    return {name: [row[i] for row in content["data"]] for i, name in enumerate(names)}


def _from_records(content: Any) -> dict[str, Values]:
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise RequestRefused("the rows should be a list of objects, one for each row")
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


def _predictions(answer: Answer) -> list[Any]:
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
