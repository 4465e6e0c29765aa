"""Model versions that are kept in memory: what tests of monitoring need of a registry."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from ml_platform.errors import ModelNotFound
from ml_platform.features import assemble
from ml_platform.registry import ModelVersion, Promotion, TrainedVersion, predict, record
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

COMMIT = Commit("test", "0")


class ByDistance:
    """The farther a trip goes, the surer it is late."""

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        late = np.clip(rows["distance"].fillna(30).to_numpy() / 100, 0, 1)
        return np.column_stack((1 - late, late))


class KeptModels:
    def __init__(self) -> None:
        self.versions: dict[int, ModelVersion] = {}
        self.aliases: dict[str, int] = {}
        self.described: dict[int, tuple[Mapping[str, str], str | None]] = {}

    def load(self, use_case: UseCase, version: int) -> ModelVersion:
        if version not in self.versions:
            raise ModelNotFound(f"{use_case.name} has no version {version}")
        return self.versions[version]

    def tags(self, use_case: UseCase, version: int) -> dict[str, str]:
        self.load(use_case, version)
        return {}

    def trained(self, use_case: UseCase) -> list[TrainedVersion]:
        return [
            TrainedVersion(each.version, each.cutoff, each.snapshot, each.trained_from)
            for each in self.versions.values()
        ]

    def made_since(
        self, use_case: UseCase, moment: datetime
    ) -> list[tuple[datetime, dict[str, str]]]:
        return []

    def set_alias(self, use_case: UseCase, alias: str, version: int) -> None:
        self.aliases[alias] = version

    def describe(
        self, use_case: UseCase, version: int, tags: Mapping[str, str], text: str | None = None
    ) -> None:
        self.described[version] = tags, text

    def alias(self, use_case: UseCase, alias: str) -> int | None:
        return self.aliases.get(alias)

    def train(self, lake: Lake, use_case: UseCase, window_range: Window) -> int:
        """Keep a version whose reference are the labelled rows of a range."""
        version = len(self.versions) + 1
        with lake.cursor(use_case.timezone) as cursor:
            snapshot = lake.snapshot(cursor)
            rows = assemble(
                cursor, lake, use_case, window_range, snapshot, labels_known_by=window_range.end
            )
        columns = use_case.model_columns
        model = ModelVersion(
            use_case=use_case.name, version=version, run_id="", cutoff=window_range.end,
            snapshot=snapshot, estimator=ByDistance(), digest="", metrics={}, reference=rows,
            classes=("0", "1"), columns=columns, trained_from=window_range.start,
            trained_until=window_range.end,
        )  # fmt: skip
        predicted = predict(use_case, model, rows)
        reference = rows[[*columns, "label"]].join(predicted)
        self.versions[version] = replace(model, reference=reference)
        return version


def promote(lake: Lake, use_case: UseCase, version: int, moment: datetime) -> None:
    at_once = moment.astimezone(UTC)
    record(lake, use_case, Promotion(version, at_once, at_once, "test", "promoted", ""), COMMIT)
