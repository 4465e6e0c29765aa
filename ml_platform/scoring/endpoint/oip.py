"""The Open Inference Protocol, version 2, over REST: a column is a tensor of shape [n]."""

import msgspec
import pandas as pd

from ml_platform.errors import EndpointRefused
from ml_platform.scoring.endpoint.answers import (
    Answered,
    answered_by,
    chosen,
    columns_as_lists,
    is_number,
    numbers,
    shaped,
)
from ml_platform.scoring.endpoint.http import Sender, document


class OipAsker:
    """Asks one model over REST."""

    def __init__(self, url: str, model: str, output: str, sender: Sender) -> None:
        self.where = f"{url}/v2/models/{model}/infer"
        self._output, self._sender = output, sender

    def pack(self, rows: pd.DataFrame) -> bytes:
        inputs = [
            {
                "name": name,
                "shape": [len(values)],
                "datatype": "FP64" if is_number(rows, name) else "BYTES",
                "data": values,
            }
            for name, values in columns_as_lists(rows).items()
        ]
        return msgspec.json.encode({"inputs": inputs})

    def ask(self, body: bytes) -> Answered:
        found = document(self._sender.post(self.where, body))
        outputs = found.get("outputs")
        if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
            raise EndpointRefused("the answer has no list `outputs`")
        output = chosen({str(each.get("name")): each for each in outputs}, self._output)
        values = numbers(output.get("data"), f"output '{self._output}'")
        shape = output.get("shape")
        if not isinstance(shape, list) or any(type(size) is not int for size in shape):
            raise EndpointRefused(f"output '{self._output}' has no shape")
        return answered_by(shaped(values, shape), found.get("model_version"))

    def close(self) -> None:
        self._sender.close()
