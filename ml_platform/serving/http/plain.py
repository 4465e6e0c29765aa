"""Rows by key in plain JSON: what the caller does not know is looked up."""

from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.features import OUTCOMES
from ml_platform.serving.batch_prediction import Predictions
from ml_platform.serving.http.answers import as_json
from ml_platform.serving.http.bodies import parse
from ml_platform.serving.http.calls import calling, named, read_rows
from ml_platform.serving.http.endpoints import Answer, Body, Need, PathSubject, Schema, endpoint
from ml_platform.serving.http.problems import OF_PREDICTIONS
from ml_platform.serving.http.samples import key_row
from ml_platform.serving.http.schemas import listed, sent_rows
from ml_platform.serving.service import Service
from ml_platform.serving.zones import RowTimes


class PredictRequest(Struct, frozen=True):
    """Rows by key and request-time columns."""

    rows: list[dict[str, Any]]
    version: Annotated[int | str | None, Meta(description="Only this version may answer.")] = None


class PredictResponse(Struct, frozen=True):
    """Predictions, one for each row."""

    use_case: str
    version: Annotated[int, Meta(description="The version that answered.")]
    predictions: list[dict[str, Any]]
    times_read: RowTimes | UnsetType = UNSET


def _asked(subject: PathSubject) -> Schema:
    return {"rows": sent_rows(subject.case, subject.answering)}


def _answered(subject: PathSubject) -> Schema:
    return {
        "use_case": {"const": subject.case.name},
        "predictions": listed(_prediction(subject)),
    }


def _prediction(subject: PathSubject) -> Schema:
    columns: dict[str, Schema] = {"id": {"type": "string"}}
    for name, kind in subject.case.prediction_columns.items():
        if kind.startswith("MAP"):
            columns[name] = {"type": "object", "additionalProperties": {"type": "number"}}
        else:
            columns[name] = {"type": "string" if kind == "VARCHAR" else "number"}
    reasons = [outcome for outcome in OUTCOMES if outcome != "found"]
    columns["not_found"] = {
        "type": "object",
        "description": "Feature views whose features were missing, and why: their newest row is "
        "too old (`expired`), or there is none of the entity up to then (`missing`).",
        "properties": {view: {"enum": reasons} for view in subject.case.model_views},
        "additionalProperties": False,
    }
    return {"type": "object", "required": list(columns), "properties": columns}


def _example(subject: PathSubject) -> Any:
    return {"rows": [key_row(subject.case, subject.answering)]}


@dataclass(frozen=True)
class Plain:
    """Handlers of the platform's own paths."""

    service: Service

    @endpoint(
        "POST", "/predict/{model}",
        needs=Need("predict"),
        summary="Predict by key; features are looked up",
        tag="predictions",
        body=Body(PredictRequest, _example, _asked),
        answers={200: Answer(PredictResponse, narrow=_answered, headers=("X-Prediction-Id",))},
        problems=OF_PREDICTIONS,
    )  # fmt: skip
    async def predict(self, request: Request) -> Response:
        """Predict rows given by key and request-time columns."""
        name = request.path_params["model"]
        with calling(self.service, "plain", name) as call:
            # Whether there is anybody to answer comes before what the body looks like.
            self.service.live.model(name)
            asked = parse(await read_rows(self.service, request), PredictRequest)
            version = None if asked.version is None else str(asked.version)
            answer = await self.service.predict_examples(name, asked.rows, version, call)
        read = await self.service.times_read(name, asked.rows)
        body = PredictResponse(name, answer.model.version, predictions_of(answer), read or UNSET)
        return as_json(body, headers=named(answer))


def predictions_of(answer: Predictions) -> list[dict[str, Any]]:
    """An object for each row."""
    columns = {
        "id": answer.ids,
        **{name: values.tolist() for name, values in answer.columns.items()},
    }
    if answer.found is not None:
        columns["not_found"] = answer.found.not_found
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
