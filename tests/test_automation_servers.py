"""The loop in the real Dagster: a file lands, and everything that follows comes by itself."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from starlette.testclient import TestClient

from ml_platform.serving.worker import create_app
from ml_platform.settings import Settings
from ml_platform_dagster.resources.ranges import RANGES
from tests import trips_use_case as trips
from tests.dagster_servers import ROOT, dagster_dev, finished_ticks, land_trips, project
from tests.served import LOCAL, LOGGED, serving_settings

WITHIN_SECONDS = 300
CUTOFF = "2024-03-21"
SENSORS = ("trips_landing", "trips_automation")
FOLLOWERS = [
    "pace_features",
    "online_features",
    "labels",
    "predictions",
    "drift_report",
    "performance_report",
]


class Watch:
    """What Dagster knows, seen from beside it."""

    def __init__(self, home: str) -> None:
        self.instance = dg.DagsterInstance.from_config(home)

    def materialized(self, table: str) -> set[str]:
        return self.instance.get_materialized_partitions(dg.AssetKey(["trips", table]))

    def runs(self) -> list[dg.DagsterRun]:
        return self.instance.get_runs()

    def quiet(self) -> bool:
        return all(run.is_finished for run in self.runs())

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + WITHIN_SECONDS
        while not (condition() and self.quiet()):
            assert time.monotonic() < deadline, f"not within {WITHIN_SECONDS} s: {what}"
            time.sleep(1)
        assert all(run.status is dg.DagsterRunStatus.SUCCESS for run in self.runs())


@contextmanager
def watching(environment: Mapping[str, str]) -> Iterator[Watch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DAGSTER_HOME", environment["DAGSTER_HOME"])
        watch = Watch(environment["DAGSTER_HOME"])
        try:
            yield watch
        finally:
            watch.instance.dispose()


def launch(environment: Mapping[str, str], *arguments: str) -> None:
    subprocess.run(
        ["dg", "launch", *arguments], cwd=ROOT, env=dict(environment), check=True, timeout=300
    )


@pytest.mark.slow
@pytest.mark.exhaustive
def test_what_lands_comes_through_to_its_performance_and_a_correction_repairs_what_it_touched(
    tmp_path: Path,
) -> None:
    environment = project(tmp_path, 1, 24, ML_PLATFORM_AUTOMATION="true")
    data = Path(environment["ML_PLATFORM_DATA"])
    days = {f"2024-03-{day:02d}" for day in range(1, 25)}
    with dagster_dev(environment), watching(environment) as watch:
        watch.wait(lambda: watch.materialized("labels") == days, "24 days and their labels")
        assert watch.materialized("pace_features") == days
        assert watch.materialized("predictions") == set()
        # All of them at once: a run that ingested them, and one for what followed.
        assert len(watch.runs()) == 2

        launch(environment, "--assets", "key:trips/model or key:trips/promotions",
               "--partition", CUTOFF)  # fmt: skip
        before = len(watch.runs())
        land_trips(data, 25, 25)
        watch.wait(lambda: "2024-03-25" in watch.materialized("performance_report"), "a new day")
        assert watch.materialized("predictions") == {"2024-03-25"}
        assert len(watch.runs()) == before + 2

        land_trips(data, 23, 23, seed=5)
        watch.wait(lambda: len(watch.runs()) == before + 4, "a correction")
        repaired = json.loads(watch.runs()[0].tags[RANGES])
        assert sorted(repaired) == sorted(FOLLOWERS)
        assert repaired["pace_features"] == ["2024-03-23", "2024-03-24"]
        assert repaired["predictions"] == ["2024-03-23", "2024-03-25"]
        assert {"2024-03-23", "2024-03-24"} <= watch.materialized("performance_report")

        # Nothing goes round in circles: three ticks of either sensor later all is as it was.
        seen = {name: finished_ticks(environment, name) for name in SENSORS}
        watch.wait(
            lambda: all(finished_ticks(environment, name) >= seen[name] + 3 for name in SENSORS),
            "three more ticks",
        )
        assert len(watch.runs()) == before + 4
        assert all(run.status is dg.DagsterRunStatus.SUCCESS for run in watch.runs())


@pytest.mark.slow
def test_what_is_asked_and_said_comes_through_to_reports_on_live_traffic(tmp_path: Path) -> None:
    environment = project(tmp_path, 1, 24, ML_PLATFORM_AUTOMATION="true")
    data, use_cases = tmp_path / "data", tmp_path / "use_cases"
    spec = use_cases / "trips" / "use_case.yaml"
    spec.write_text(spec.read_text() + LOGGED)
    day = "2024-03-24"
    landed = trips.trips(1, 24).query("started_at.dt.day == 24").drop(columns="delay").dropna()
    texts = landed.assign(started_at=landed["started_at"].map(lambda at: at.isoformat()))
    rows = texts.astype(object).to_dict("records")
    with dagster_dev(environment), watching(environment) as watch:
        watch.wait(lambda: day in watch.materialized("online_features"), "features online")
        launch(environment, "--assets", "key:trips/model or key:trips/promotions",
               "--partition", CUTOFF)  # fmt: skip

        # From now on nobody does anything but ask, and say what became of it.
        settings = Settings(data=data, use_cases=use_cases)
        with TestClient(create_app(settings, serving_settings()), LOCAL) as client:
            asked = client.post("/predict/trips", json={"rows": rows})
            assert asked.status_code == 200, asked.text
            first = asked.json()["predictions"][0]["id"]
            said = {"items": [{"prediction_id": first, "label": True}]}
            assert client.post("/feedback/trips", json=said).status_code == 202
            refused = client.post("/predict/trips", json={"rows": [{"town": 1}]})
            assert refused.status_code == 400
        for table in ("live_drift_report", "live_performance_report"):
            watch.wait(lambda table=table: day in watch.materialized(table), table)
        assert watch.materialized("requests") == watch.materialized("feedback") == {day}
        assert len(watch.materialized("refusals")) == 1
