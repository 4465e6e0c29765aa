"""MLflow's scoring protocol: `/invocations`, of `mlflow models serve` or of our own service."""

import msgspec
import pandas as pd

from ml_platform.errors import EndpointRefused
from ml_platform.scoring.endpoint.answers import (
    Answered,
    answered_by,
    columns_as_lists,
    numbers,
)
from ml_platform.scoring.endpoint.http import Sender, document

PATH = "/invocations"
VERSION = "x-model-version"
"""Header of our service; MLflow's own server does not say which version answers."""


class MlflowAsker:
    """Asks one model over MLflow's protocol."""

    def __init__(self, url: str, sender: Sender) -> None:
        self.where = url if url.endswith(PATH) else url + PATH
        self._sender = sender

    def pack(self, rows: pd.DataFrame) -> bytes:
        columns = columns_as_lists(rows)
        data = [list(row) for row in zip(*columns.values(), strict=True)]
        return msgspec.json.encode({"dataframe_split": {"columns": list(columns), "data": data}})

    def ask(self, body: bytes) -> Answered:
        answer = self._sender.post(self.where, body)
        predictions = document(answer).get("predictions")
        if not isinstance(predictions, list):
            raise EndpointRefused("the answer has no list `predictions`")
        return answered_by(numbers(predictions, "`predictions`"), answer.headers.get(VERSION))

    def close(self) -> None:
        self._sender.close()
