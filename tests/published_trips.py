"""Trips whose predictions are published: a lake that tests share, and declarations of targets."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import SecretStr

from ml_platform.backfill import due, judge
from ml_platform.publish import PublishReport, publish_range
from ml_platform.registry import Promotion, champion_at, history, record
from ml_platform.rollback import RollbackPlan, affected_by, plan_rollback, recompute, roll_back
from ml_platform.scoring import predictions_table, score
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import code_version
from ml_platform.spec.use_case import UseCase, published_table
from ml_platform.spec.windows import Calendar, Window
from ml_platform.storage import Commit, Lake, replace_windows
from tests.database_servers import Database
from tests.kept_models import ByDistance, KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, trips, write_folder

COLUMNS = (
    '[trip, event_time, probability, model_version, city, distance, "probability > 0.4 AS is_late"]'
)


class Backwards(ByDistance):
    def predict_proba(self, rows: pd.DataFrame) -> Any:
        return super().predict_proba(rows)[:, ::-1]


@dataclass(frozen=True)
class Published:
    """A lake with predictions of March 9 to 14 by version 1, and a database of others."""

    root: Path
    lake: Lake
    registry: KeptModels
    database: Database

    def declare(self, name: str, **declared: str) -> UseCase:
        """The use case with one publication to a table of its own name."""
        return self.declared({name: {"table": f"others.{name}", "columns": COLUMNS, **declared}})

    def declared(self, publications: Mapping[str, Mapping[str, str]]) -> UseCase:
        folder = self.root / "declared" / "-".join(publications)
        use_case = write_folder(folder, "binary")
        lines = ["publish:"]
        for name, declared in publications.items():
            given = ", ".join(f"{key}: {value}" for key, value in declared.items())
            lines.append(f"  {name}: {{{given}}}")
        file = use_case.folder / "use_case.yaml"
        file.write_text(file.read_text() + "\n".join(lines) + "\n")
        return load_use_case(use_case.folder, self.lake.settings.databases)

    def publish(self, use_case: UseCase, window_range: Window) -> PublishReport:
        (name,) = use_case.publish
        table = published_table(name)
        commit = Commit("test", code_version(use_case, table), f"{use_case.name}/{table}")
        return publish_range(self.lake, use_case, name, window_range, commit)

    def score(self, use_case: UseCase, window_range: Window) -> None:
        score(self.lake, self.registry, use_case, window_range, COMMIT)

    def due(self, use_case: UseCase) -> list[int]:
        """Days of which the publication lacks something."""
        (name,) = use_case.publish
        table = published_table(name)
        states = judge(self.lake, use_case, days(9, 14), [table])[table]
        return [window.start.day for window in due(states)]

    @contextmanager
    def opposite(self, use_case: UseCase, window_range: Window) -> Iterator[None]:
        """Version 2 has predicted a range in the meantime."""
        self._promote(use_case, 2, window_range.start)
        self.score(use_case, window_range)
        yield
        if champion_at(history(self.lake, use_case), window_range.start) == 1:
            return
        self._promote(use_case, 1, window_range.start)
        self.score(use_case, window_range)

    def _promote(self, use_case: UseCase, version: int, since: datetime) -> None:
        # A version is promoted once, and rolled back to as often as a test likes.
        decision = Promotion(version, since, datetime.now(UTC), "test", "rolled back", "")
        record(self.lake, use_case, decision, COMMIT)

    @contextmanager
    def without_predictions(self, window_range: Window) -> Iterator[None]:
        """The lake has no predictions of a range in the meantime."""
        table = predictions_table(write_folder(self.root, "binary"))
        with self.lake.cursor() as cursor:
            replace_windows(
                self.lake, cursor, table, f"FROM {table.sql} WHERE false", time="event_time",
                calendar=self.calendar, window_range=window_range, commit=COMMIT,
            )  # fmt: skip
        yield
        self.score(write_folder(self.root, "binary"), window_range)

    @property
    def calendar(self) -> Calendar:
        return write_folder(self.root, "binary").calendar

    def plan_rollback(self, use_case: UseCase) -> RollbackPlan:
        return plan_rollback(
            self.lake, self.registry, use_case, decided_by="ada", reason="odd", to=1
        )

    def roll_back(self, use_case: UseCase, plan: RollbackPlan) -> None:
        """Roll back, and recompute what the plan says."""
        roll_back(self.lake, self.registry, use_case, plan, COMMIT)
        commits = {name: COMMIT for name, _ in plan.affected.tables}
        recompute(self.lake, self.registry, use_case, plan.affected, commits)

    def plan_affected(self, use_case: UseCase) -> bool:
        """Whether anything is stored that another champion has made."""
        return bool(affected_by(self.lake, use_case, history(self.lake, use_case), at(9)))

    def predicted(self, columns: str, window_range: Window) -> list[tuple[Any, ...]]:
        """Rows of the lake's predictions."""
        with self.lake.cursor() as cursor:
            return cursor.execute(
                f"SELECT {columns} FROM lake.trips.predictions "
                "WHERE event_time >= ? AND event_time < ? ORDER BY ALL",
                [window_range.start, window_range.end],
            ).fetchall()


def published_trips(root: Path, database: Database, **settings: Any) -> Published:
    """Version 1 serves from the 9th on; version 2, that predicts the opposite, does not serve."""
    made = Settings(
        data=root / "data", databases={"others": SecretStr(database.setting)}, **settings
    )
    lake, registry = Lake(made), KeptModels()
    use_case = write_folder(root, "binary")
    land(lake, use_case, trips(1, 14), days(1, 14))
    registry.train(lake, use_case, days(1, 8))
    registry.train(lake, use_case, days(1, 8))
    registry.versions[2] = replace(registry.versions[2], estimator=Backwards())
    promote(lake, use_case, 1, at(9))
    score(lake, registry, use_case, days(9, 14), COMMIT)
    return Published(root, lake, registry, database)
