"""Published tables in the real Dagster: a rollback and a correction reach them by themselves."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.dagster_servers import dagster_dev, project
from tests.database_servers import Database, mysql_database, postgres_database
from tests.test_decisions_servers import run, wait_until

PUBLISH = """\
gate: {min_improvement: -1}
values: as_revised
publish:
  replaced: {table: mariadb.replaced, columns: [COLUMNS]}
  upserted: {table: postgres.upserted, columns: [COLUMNS], mode: upsert}
"""
COLUMNS = ("trip", "event_time", "probability", "model_version", "distance")
SHOWN = "trip, probability, model_version, distance"


class Tables:
    """The published tables, and the predictions of the lake that they should hold."""

    def __init__(self, data: Path, mariadb: Database, postgres: Database) -> None:
        self._data = data
        self._of_others = {"replaced": mariadb, "upserted": postgres}

    def predicted(self) -> list[tuple[Any, ...]]:
        lake = Lake(Settings(data=self._data))
        with lake.cursor() as cursor:
            rows = cursor.execute(
                """SELECT p.trip, probability, model_version, distance
                FROM lake.trips.predictions p JOIN lake.trips.trips USING (trip) ORDER BY trip"""
            ).fetchall()
        lake.close()
        return rows

    def published(self, table: str) -> list[tuple[Any, ...]]:
        return self._of_others[table].run(f"SELECT {SHOWN} FROM {table} ORDER BY trip")

    def follow(self) -> bool:
        """Whether each table holds exactly what the lake does."""
        wanted = self.predicted()
        return all(self.published(table) == wanted for table in self._of_others)

    def versions(self) -> set[int]:
        return {version for _, _, version, _ in self.predicted()}


def correct(data: Path, day: str) -> set[int]:
    """Land the trips of a day again, each of them longer; which ones."""
    file = Path(Settings(data=data).landing_uri) / "trips" / f"{day}.csv"
    rows = pd.read_csv(file).fillna({"distance": 0.0})
    rows.assign(distance=rows["distance"] + 20).to_csv(file, index=False)
    return set(rows["trip"])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_rollback_and_a_correction_reach_the_tables_of_others_by_themselves(
    tmp_path: Path, mariadb: dict[str, Any], postgres: Any
) -> None:
    others = {
        "mariadb": mysql_database(mariadb, "follows"),
        "postgres": postgres_database(postgres, "follows"),
    }
    settings = json.dumps({name: database.setting for name, database in others.items()})
    environment = project(
        tmp_path, 1, 28, ML_PLATFORM_AUTOMATION="true", ML_PLATFORM_DATABASES=settings
    )
    file = tmp_path / "use_cases" / "trips" / "use_case.yaml"
    file.write_text(file.read_text() + PUBLISH.replace("COLUMNS", ", ".join(COLUMNS)))
    for step in ("ingest", "features", "labels"):
        run(environment, "ml-platform", step, "trips", "--range", "2024-03-01...2024-03-28")
    for version, cutoff in ((1, "2024-03-21"), (2, "2024-03-24")):
        run(environment, "ml-platform", "train", "trips", "--cutoff", cutoff)
        run(environment, "ml-platform", "promote", "trips", str(version))
    for step in ("score", "publish"):
        run(environment, "ml-platform", step, "trips", "--range", "2024-03-21...2024-03-28")
    tables = Tables(tmp_path / "data", **others)
    assert tables.follow()
    assert tables.versions() == {1, 2}

    # From now on a person decides that version 1 serves, and a file lands. No more is done.
    with dagster_dev(environment):
        run(environment, "ml-platform", "rollback", "trips", "--reason", "odd", "--yes")
        wait_until(lambda: tables.versions() == {1} and tables.follow(), "all is of version 1")
        before = tables.predicted()
        corrected = correct(tmp_path / "data", "2024-03-25")
        wait_until(lambda: tables.predicted() != before and tables.follow(), "the correction")
    changed = set(tables.predicted()) - set(before)
    assert {trip for trip, *_ in changed} == corrected
    assert tables.versions() == {1}
