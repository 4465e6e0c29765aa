"""The model as a BentoML service, as its documentation shows it; runs in an environment of its own.

MODEL names a folder with `model.joblib` and `columns.json`.
"""

import json
import os
from pathlib import Path

import bentoml
import joblib
import numpy as np
import pandas as pd

FOLDER = Path(os.environ["MODEL"])


@bentoml.service(workers=int(os.environ["WORKERS"]), traffic={"timeout": 60})
class Flights:
    """Rows in, probabilities out; rows that come together are predicted together."""

    def __init__(self) -> None:
        self.model = joblib.load(FOLDER / "model.joblib")
        self.columns = json.loads((FOLDER / "columns.json").read_text())

    @bentoml.api(batchable=True, max_batch_size=256, max_latency_ms=10_000)
    def predict(self, rows: list[dict]) -> np.ndarray:
        frame = pd.DataFrame(rows, columns=list(self.columns)).astype(self.columns)
        return self.model.predict_proba(frame)
