"""The loop closes by itself: flights land day by day into a storm week, before a real `dg dev`.

From 24 June 2013 on a week of storms delays New York's flights. The files of each day land, and
nobody does anything but look: rows are ingested, features and predictions follow, drift is seen,
a challenger is trained and judged, people are notified, and a corrected old file repairs what it
touched.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from demo.source_system import land_flights
from ml_platform.monitoring import retraining_verdicts
from ml_platform.orchestrator import Orchestrator
from ml_platform.registry import Promotion, history
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase, feature_table
from ml_platform.storage import Lake
from ml_platform_dagster.resources.reasons import CAUSE
from tests.alert_receivers import WebReceiver, web_receiver
from tests.dagster_servers import ROOT, dagster_dev, project

pytestmark = pytest.mark.slow

T = TypeVar("T")

FIRST, CUTOFF, NEXT = date(2013, 5, 10), date(2013, 6, 24), date(2013, 6, 25)
STORM_SEEN = date(2013, 6, 27)
CORRECTED = date(2013, 6, 26)
PATIENCE_SECONDS = 600

SHORTER = {
    "start: 2013-01-01, end: 2014-01-0": "start: 2013-05-10, end: 2013-07-1",
    "window: 60d, holdout: 7d": "window: 28d, holdout: 5d",
    # A correction of 2026 would change nothing that was known in 2013.
    'files: "outcomes/*.csv"': 'corrections: rewrite\n    files: "outcomes/*.csv"',
    "monitoring: {window: 28d": "monitoring: {window: 4d",
    "share: 0.3}": "share: 0.5}",
    "on: [drift, performance, schedule], sustained: 3 of 5, cooldown: 14d": (
        "on: [drift], sustained: 2 of 3, cooldown: 3d"
    ),
}
"""Changes of the use case that let a week do what else takes months."""


TICKS = """{ repositoriesOrError { ... on RepositoryConnection { nodes { sensors {
  name sensorState {
  status ticks(limit: 1) { tickId timestamp status skipReason error { message } } } } } } } }"""


class World:
    """One deployment as a person finds it: landing folder, Dagster, lake."""

    def __init__(self, environment: dict[str, str], url: str, receiver: WebReceiver) -> None:
        self.settings = Settings(
            data=Path(environment["ML_PLATFORM_DATA"]),
            use_cases=Path(environment["ML_PLATFORM_USE_CASES"]),
            catalog=environment.get("ML_PLATFORM_CATALOG"),
        )
        self.use_case: UseCase = load_use_case(self.settings.use_cases / "flight_delays")
        self.dagster = Orchestrator(url)
        self.receiver = receiver
        self.lake = Lake(self.settings)

    @property
    def landing(self) -> Path:
        return Path(self.settings.landing_uri) / "flight_delays"

    def land_and_wait(self, day: date) -> None:
        """Land a day's files, and wait until its drift report is there."""
        land_flights(self.landing, [day])
        eventually(
            lambda: day.isoformat() in self.materialized("drift_report"),
            f"predictions and drift of {day}", self,
        )  # fmt: skip

    def materialized(self, table: str) -> set[str]:
        """Keys of the partitions that Dagster says are there."""
        name = f"flight_delays/{table}"
        calendar = self.use_case.calendar
        keys: set[str] = set()
        for first, last in self.dagster.partitions([name])[name].materialized:
            day = calendar.window(first)
            while calendar.key(day) <= last:
                keys.add(calendar.key(day))
                day = calendar.window_at(day.end)
        return keys

    def snapshots(self, table: str) -> dict[str, int]:
        """Snapshot at which each partition of a table was computed last."""
        with self.lake.cursor() as cursor:
            rows = cursor.execute(
                f"""SELECT strftime(window_start - INTERVAL 4 HOUR, '%Y-%m-%d'), max(snapshot)
                FROM lake.flight_delays.{table} GROUP BY 1"""
            ).fetchall()
        return dict(rows)

    def decisions(self) -> list[Promotion]:
        return history(self.lake, self.use_case)

    def ticks(self) -> dict[str, Any]:
        """What each sensor did last, and why it asked for nothing."""
        found = self.dagster.post(TICKS)["repositoriesOrError"]["nodes"]
        return {
            sensor["name"]: sensor["sensorState"]["ticks"]
            for repository in found
            for sensor in repository["sensors"]
        }

    def idle(self) -> bool:
        return not [run for run in self.dagster.runs(limit=20) if not run.status.is_over]


def eventually(found: Callable[[], T | None], what: str, world: World) -> T:
    """Wait until there is something to be found."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (it := found()):
        if time.monotonic() > deadline:
            runs = [(r.run_id, r.status.value, r.tags) for r in world.dagster.runs(limit=5)]
            verdicts = retraining_verdicts(world.lake, world.use_case, "drift")
            pytest.fail(
                f"{what} did not happen; drift: {verdicts}; decisions: {world.decisions()}; "
                f"ticks: {world.ticks()}; latest runs: {runs}"
            )
        time.sleep(1)
    return it


@pytest.fixture(
    scope="module", params=["sqlite", pytest.param("postgres", marks=pytest.mark.exhaustive)]
)
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    root = tmp_path_factory.mktemp("loop")
    with web_receiver() as receiver:
        environment = project(
            root, 1, 1, ML_PLATFORM_AUTOMATION="true", ML_PLATFORM_ALERTS=receiver.url
        )
        if request.param == "postgres":
            environment |= on_postgres(request.getfixturevalue("postgres"), root)
        shutil.rmtree(root / "use_cases" / "trips")
        folder = shutil.copytree(
            ROOT / "use_cases" / "flight_delays", root / "use_cases" / "flight_delays"
        )
        spec = folder / "use_case.yaml"
        text = spec.read_text()
        for before, after in SHORTER.items():
            assert before in text
            text = text.replace(before, after)
        spec.write_text(text)
        land_flights(
            root / "data" / "landing" / "flight_delays",
            [FIRST + timedelta(days=n) for n in range((CUTOFF - FIRST).days + 1)],
        )
        with dagster_dev(environment) as url:
            world = World(environment, url, receiver)
            yield world
            world.dagster.close()
            world.lake.close()


def on_postgres(server: Any, root: Path) -> dict[str, str]:
    """Lake and Dagster in PostgreSQL, as on a host that compose or systemd set up."""
    for name in ("loop_lake", "loop_dagster"):
        server.psql(f"CREATE DATABASE {name};")
    shutil.copy(
        ROOT / "deploy" / "dagster_postgres.yaml", root / "data" / "dagster" / "dagster.yaml"
    )
    return {
        "ML_PLATFORM_CATALOG": f"postgres:{server.get_uri('loop_lake')}",
        "DAGSTER_POSTGRES": server.get_uri("loop_dagster").replace("://", "+psycopg2://", 1),
        "DAGSTER_FILES": str(root / "data" / "dagster"),
    }


def test_the_loop_closes_by_itself(world: World) -> None:
    # Six weeks have landed before anybody looked: ingested, and their features are there.
    tables = [*map(feature_table, world.use_case.features), "labels"]
    eventually(
        lambda: all(CUTOFF.isoformat() in world.materialized(table) for table in tables[:-1]),
        "ingesting what had landed", world,
    )  # fmt: skip
    eventually(
        lambda: (CUTOFF - timedelta(days=1)).isoformat() in world.materialized("labels"),
        "labels of what had landed", world,
    )  # fmt: skip
    eventually(world.idle, "the end of the first runs", world)

    # A person trains the first model; the gate promotes it, and says so.
    names = ["flight_delays/model", "flight_delays/promotions"]
    world.dagster.launch_range(names, CUTOFF.isoformat(), CUTOFF.isoformat(), {})
    first = eventually(world.decisions, "the first decision", world)
    assert [(p.version, p.decision) for p in first] == [(1, "promoted")]

    # From now on nobody does anything but land files.
    for number in range((STORM_SEEN - NEXT).days + 1):
        world.land_and_wait(NEXT + timedelta(days=number))

    # The storm drifts for two days of three, and a challenger is trained once for that.
    challenged = eventually(
        lambda: world.decisions() if len(world.decisions()) > 1 else None,
        "the decision about a challenger", world,
    )  # fmt: skip
    assert len(challenged) == 2
    assert challenged[1].version == 2
    assert len(world.dagster.runs({CAUSE: "drift"})) == 1

    # Somebody has been notified.
    notified = " / ".join(world.receiver.titles)
    eventually(lambda: any("drift" in t.lower() for t in world.receiver.titles),
               f"alert: {notified}", world)  # fmt: skip
    word = "promoted" if challenged[1].decision == "promoted" else "refused"
    eventually(lambda: any(word in t.lower() for t in world.receiver.titles), f"{word}: {notified}",
               world)  # fmt: skip

    # An old file is corrected: what depended on it is recomputed, and nothing else.
    eventually(world.idle, "a moment without runs", world)
    before = {t: world.snapshots(t) for t in ("predictions", "drift_report")}
    outcomes = world.landing / "outcomes" / f"{CORRECTED.isoformat()}.csv"
    lines = outcomes.read_text().splitlines(keepends=True)
    outcomes.write_text("".join(lines[: len(lines) // 2]) + "".join(lines[len(lines) // 2 + 1 :]))
    eventually(
        lambda: world.snapshots("drift_report").get(STORM_SEEN.isoformat(), 0)
        > before["drift_report"][STORM_SEEN.isoformat()],
        "the repair", world,
    )  # fmt: skip
    eventually(world.idle, "the end of the repair", world)
    for table, earlier in before.items():
        now = world.snapshots(table)
        untouched = {key for key in earlier if key < CORRECTED.isoformat()}
        assert {key: now[key] for key in untouched} == {key: earlier[key] for key in untouched}
