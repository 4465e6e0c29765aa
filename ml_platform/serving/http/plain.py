"""Rows by key in plain JSON: what the caller does not know is looked up."""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ml_platform.errors import RequestRefused
from ml_platform.serving.http.bodies import parse_json, read_body
from ml_platform.serving.http.calls import calling, named
from ml_platform.serving.service import Service
from ml_platform.serving.together import Answer


@dataclass(frozen=True)
class Plain:
    """Handlers of the platform's own paths."""

    service: Service

    async def predict(self, request: Request) -> Response:
        """Predict rows given by key and request-time columns."""
        name = request.path_params["model"]
        with calling(self.service, "plain", name) as call:
            document = parse_json(await read_body(request, self.service.settings))
            if not isinstance(document, dict) or not isinstance(document.get("rows"), list):
                raise RequestRefused("the body should be an object with `rows`, a list of objects")
            version = document.get("version")
            if version is not None and not isinstance(version, int | str):
                raise RequestRefused("`version` should be a number")
            asked = None if version is None else str(version)
            answer = await self.service.predict_examples(name, document["rows"], asked, call)
        read = await self.service.times_read(name, document["rows"])
        body = {
            "use_case": name,
            "version": answer.model.version,
            "predictions": predictions_of(answer),
            **(read.body() if read else {}),
        }
        return Response(
            msgspec.json.encode(body), headers=named(answer), media_type="application/json"
        )


def predictions_of(answer: Answer) -> list[dict[str, Any]]:
    """An object for each row."""
    columns = {
        "id": answer.ids,
        **{name: values.tolist() for name, values in answer.columns.items()},
    }
    if answer.found is not None:
        columns["not_found"] = answer.found.not_found
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
