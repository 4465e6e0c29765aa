"""Commands that can be paused between what they read, compute and commit, and what they leave."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

from ml_platform.backfill import computing, judge
from ml_platform.errors import PlatformError
from ml_platform.features import (
    compute_features,
    compute_labels,
    open_online_store,
    publish_views,
)
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Promotion, answer, history, record
from ml_platform.rollback import plan_rollback, roll_back
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide
from tests.kept_models import ByDistance, KeptModels, promote
from tests.trips_use_case import LABELS, MODEL, at, days, trips

SPEC = """\
description: Trips
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  trips:
    files: "trips/*.csv"
    event_time: started_at
    key: [trip]
    columns:
      {trip: BIGINT, started_at: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE, delay: DOUBLE}
  prices:
    table: erp.main.prices
    high_water: updated_at
    event_time: priced_at
    key: [city]
    columns:
      {city: VARCHAR, priced_at: TIMESTAMPTZ, updated_at: TIMESTAMPTZ, price: DOUBLE}
features:
  pace: {entity: [trip], lookback: 1d, ttl: 1d}
  price: {entity: [city], lookback: 1d, ttl: 2d}
examples: {source: trips, entity: [trip], columns: [city, distance]}
label: {task: binary, horizon: 1d, feedback: {}}
model: {build: "model:build", window: 20d, holdout: 3d, metric: roc_auc, min_rows: 20}
monitoring: {window: 3d, reference_rows: 200}
"""
RANGE = days(9, 15)
NOW = at(28)
STAMPS = {
    "_snapshot",
    "snapshot",
    "scored_at",
    "labels_known_by",
    "decided_at",
    "begun_at",
    "run_id",
}
"""Columns that say when, and from which snapshot, a row was made."""
INDEXES = {"landings", "computations", "leak_checks"}
"""Tables that may note the same twice, or what a restarted command has looked at before."""


class Backwards(ByDistance):
    """The nearer, the later."""

    def predict_proba(self, rows: pd.DataFrame) -> Any:
        return super().predict_proba(rows)[:, ::-1]


@dataclass
class World:
    """A use case with news for every command: none that runs leaves everything as it was."""

    root: Path
    settings: Settings
    use_case: UseCase
    registry: KeptModels = field(default_factory=KeptModels)
    lakes: list[Lake] = field(default_factory=list)

    def lake(self) -> Lake:
        """A lake as another process would attach it."""
        self.lakes.append(Lake(self.settings))
        return self.lakes[-1]

    def close(self) -> None:
        while self.lakes:
            self.lakes.pop().close()

    def land(self, name: str, text: str) -> None:
        file = self.root / "data" / "landing" / "trips" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def land_trips(self, name: str, first: int, last: int, seed: int) -> None:
        self.land(f"trips/{name}.csv", trips(first, last, a_day=12, seed=seed).to_csv(index=False))

    def land_feedback(self, name: str, day: int, label: bool) -> None:
        said = pd.DataFrame(
            {
                "feedback_id": f"{name}-{day}",
                "prediction_id": None,
                "trip": [day * 10_000],
                "event_time": [at(day).astimezone(UTC).isoformat()],
                "label": [label],
                "kind": "label",
                "origin": "caller",
                "given_by": "ada",
                "known_at": [at(day + 1).astimezone(UTC).isoformat()],
                "received_at": [at(day + 1).astimezone(UTC).isoformat()],
            }
        )
        self.land(f"feedback/{name}.jsonl", said.to_json(orient="records", lines=True))

    def set_price(self, day: int, price: float, updated: int) -> None:
        moment = f"2024-03-{day:02d} 06:00:00+00:00"
        with sqlite3.connect(self.root / "data" / "erp.sqlite") as erp:
            erp.execute("DELETE FROM prices WHERE priced_at = ?", [moment])
            erp.executemany(
                "INSERT INTO prices VALUES (?, ?, ?, ?)",
                [
                    (city, moment, f"2024-03-{updated:02d} 00:00:00+00:00", price + extra)
                    for extra, city in enumerate(("Albany", "Boston", "Chicago"))
                ],
            )
        erp.close()


def build_world(root: Path, catalog: str | None = None) -> World:
    """Two champions, one version that waits and one that nothing was decided about; news landed."""
    folder = root / "trips"
    (folder / "features").mkdir(parents=True)
    (root / "data").mkdir()
    (folder / "use_case.yaml").write_text(SPEC)
    (folder / "features" / "pace.sql").write_text(
        "SELECT trip, started_at AS event_time, distance / 60 AS pace FROM trips\n"
    )
    (folder / "features" / "price.sql").write_text(
        "SELECT city, priced_at AS event_time, price FROM prices\n"
    )
    (folder / "labels.sql").write_text(
        f"SELECT trip, started_at AS event_time, {LABELS['binary']} AS label, "
        "started_at + INTERVAL 6 HOUR AS known_at FROM trips\n"
    )
    (folder / "model.py").write_text(MODEL.format(kind="Classifier"))
    erp = root / "data" / "erp.sqlite"
    settings = Settings(
        data=root / "data", use_cases=root, catalog=catalog, databases={"erp": f"sqlite:{erp}"}
    )
    with sqlite3.connect(erp) as database:
        database.execute(
            "CREATE TABLE prices (city TEXT, priced_at TEXT, updated_at TEXT, price REAL)"
        )
    database.close()
    world = World(root, settings, load_use_case(folder, ["erp"]))
    _live_through(world)
    _bring_news(world)
    world.close()
    return world


def _live_through(world: World) -> None:
    lake, case, models = world.lake(), world.use_case, world.registry
    world.land_trips("march", 1, 14, seed=1)
    world.land_feedback("first", 9, label=True)
    for day in range(1, 13):
        world.set_price(day, float(day), updated=day)
    past = days(1, 12)
    for source in ("trips", "prices", "feedback"):
        run(lake, world, source, days(1, 14))
    for table in ("pace_features", "price_features", "labels"):
        run(lake, world, table, past)
    for window_range in (days(1, 4), days(3, 8), days(3, 11), days(4, 11)):
        version = models.train(lake, case, window_range)
        until = case.model.holdout.before(window_range.end, case.calendar.timezone)
        models.versions[version] = replace(models.versions[version], trained_until=until)
    models.versions[2] = replace(models.versions[2], estimator=Backwards())
    promote(lake, case, 1, at(5))
    promote(lake, case, 2, at(9))
    asked = Promotion(3, at(12), at(12), "gate", "waiting", "", {"champion_version": 2.0})
    record(lake, case, asked, Commit("test", "0"))
    for table in ("predictions", "drift_report", "performance_report"):
        run(lake, world, table, days(5, 12))
    with_store(world, lambda store: publish_views(lake, store, case, past))


def _bring_news(world: World) -> None:
    """What landed since: later days, corrections of days that were computed."""
    world.land_trips("correction", 10, 11, seed=2)
    world.land_trips("more", 15, 15, seed=3)
    world.land_feedback("second", 11, label=False)
    for day in (10, 13, 15):
        world.set_price(day, 50.0 + day, updated=20)


def with_store(world: World, work: Callable[[Any], Any]) -> Any:
    store = open_online_store(world.settings)
    try:
        return work(store)
    finally:
        store.close()


def run(
    lake: Lake, world: World, table: str, window_range: Window, also: "Pause | None" = None
) -> None:
    """Compute a table as every caller does, its commit accompanied by `also`."""
    case = world.use_case
    with computing(lake, case, table, window_range, "test") as alone:
        commit = replace(alone, also=also)
        if table in case.sources:
            ingest(lake, case, table, window_range, commit)
        elif table.endswith("_features"):
            compute_features(lake, case, table.removesuffix("_features"), window_range, commit)
        elif table == "labels":
            compute_labels(lake, case, window_range, commit)
        elif table == "predictions":
            score(lake, world.registry, case, window_range, commit)
        elif table == "drift_report":
            report_drift(lake, world.registry, case, window_range, commit)
        else:
            report_performance(lake, case, window_range, commit, now=NOW)


Command = Callable[[World, Lake, "Pause | None"], None]


def _compute(table: str, window_range: Window = RANGE) -> Command:
    return lambda world, lake, pause: run(lake, world, table, window_range, pause)


def _ingest_late(world: World, lake: Lake, pause: "Pause | None") -> None:
    world.land_trips("late", 11, 11, seed=4)
    run(lake, world, "trips", days(11, 11), pause)


def _ingest_late_price(world: World, lake: Lake, pause: "Pause | None") -> None:
    world.set_price(11, 99.0, updated=21)
    run(lake, world, "prices", days(11, 11), pause)


def _ingest_late_feedback(world: World, lake: Lake, pause: "Pause | None") -> None:
    world.land_feedback("late", 11, label=True)
    run(lake, world, "feedback", days(11, 11), pause)


def _publish(world: World, lake: Lake, pause: "Pause | None") -> None:
    with_store(world, lambda store: publish_views(lake, store, world.use_case, RANGE))


def _commit(pause: "Pause | None") -> Commit:
    return Commit("test", "0", "a decision", also=pause)


def _promote(world: World, lake: Lake, pause: "Pause | None") -> None:
    decide(lake, world.registry, world.use_case, 4, _commit(pause), decided_by="gate")


def _approve(world: World, lake: Lake, pause: "Pause | None") -> None:
    answer(
        lake, world.registry, world.use_case, 3,
        approve=True, decided_by="ada", reason="", commit=_commit(pause),
    )  # fmt: skip


def _roll_back(world: World, lake: Lake, pause: "Pause | None") -> None:
    plan = plan_rollback(
        lake, world.registry, world.use_case, decided_by="ada", reason="odd", to=1, since=at(9)
    )
    roll_back(lake, world.registry, world.use_case, plan, _commit(pause))


COMMANDS: Mapping[str, Command] = {
    "ingest": _compute("trips"),
    "ingest late file": _ingest_late,
    "ingest table": _compute("prices"),
    "ingest late row": _ingest_late_price,
    "ingest feedback": _compute("feedback"),
    "ingest late feedback": _ingest_late_feedback,
    "features": _compute("pace_features"),
    "features of table": _compute("price_features"),
    "labels": _compute("labels"),
    "score": _compute("predictions"),
    "drift": _compute("drift_report"),
    "performance": _compute("performance_report"),
    "publish": _publish,
    "promote": _promote,
    "approve": _approve,
    "roll back": _roll_back,
}


@dataclass
class Pause:
    """Holds one thread at one point, until it is let go; the next time it passes.

    point: `read`, once the first snapshot was asked for; `compute 1`, before the first transaction;
    `commit 1`, in it, before it is committed; and so on. As what is written along with a commit
    it sees the last moment of a transaction.
    """

    point: str
    reached: threading.Event = field(default_factory=threading.Event)
    proceed: threading.Event = field(default_factory=threading.Event)
    transactions: int = 0

    def passes(self, point: str) -> None:
        if point == self.point and not self.reached.is_set():
            self.reached.set()
            assert self.proceed.wait(120), f"nobody let {point} continue"

    def write(self, transaction: duckdb.DuckDBPyConnection) -> None:
        self.passes(f"commit {self.transactions}")

    def written(self) -> None:
        """Nothing more is done."""


@contextmanager
def pausing(patch: pytest.MonkeyPatch, lake: Lake, pause: Pause) -> Iterator[None]:
    """Let the methods of one lake report to a pause where they are."""
    snapshot, transact = lake.snapshot, lake.transact

    def noted_snapshot(cursor: Any) -> int:
        found = snapshot(cursor)
        if not pause.transactions:
            pause.passes("read")
        return found

    def noted_transact(cursor: Any, commit: Commit, work: Any) -> Any:
        pause.transactions += 1
        pause.passes(f"compute {pause.transactions}")
        return transact(cursor, commit, work)

    with patch.context() as patched:
        patched.setattr(lake, "snapshot", noted_snapshot)
        patched.setattr(lake, "transact", noted_transact)
        yield


def attempt(command: Command, world: World, lake: Lake, pause: Pause | None = None) -> str:
    """What came of a command: nothing to say, or the error that it ended with."""
    try:
        command(world, lake, pause)
    except PlatformError as error:
        return type(error).__name__
    return ""


Outcome = Mapping[str, Any]


def outcome(world: World) -> Outcome:
    """What a lake and its mirrors hold, and what is said to have to be computed."""
    lake, case = world.lake(), world.use_case
    found: dict[str, Any] = {"alias": world.registry.aliases.get("champion")}
    with lake.cursor() as cursor:
        for table in sorted(lake.tables(cursor, case.name) - INDEXES):
            relation = cursor.sql(f"FROM lake.trips.{table}")
            kept = [column for column in relation.columns if column not in STAMPS]
            rows = relation.select(", ".join(f'"{column}"' for column in kept)).fetchall()
            found[table] = sorted(map(repr, set(rows) if table == "ingestions" else rows))
    found["decisions"] = [(p.version, p.decision) for p in history(lake, case)]
    states = judge(lake, case, days(8, 16))
    found["due"] = {
        table: "".join("x" if state.is_due else "." for state in windows.values())
        for table, windows in states.items()
    }
    found["online"] = sorted(_online_rows(world))
    return found


def _online_rows(world: World) -> Iterator[str]:
    with sqlite3.connect(world.settings.online_folder / "trips.sqlite") as store:
        for view in ("pace", "price"):
            for row in store.execute(f"SELECT entity, event_time, payload FROM {view}"):
                yield repr((view, *row))
    store.close()


class Origin:
    """A world that can be brought back to its beginning."""

    def __init__(self, world: World, forget: Callable[[], None] = lambda: None) -> None:
        self.world = world
        self._kept = world.root / "kept"
        self._forget = forget
        self._aliases = dict(world.registry.aliases)
        shutil.copytree(world.settings.root, self._kept)

    def again(self) -> World:
        self.world.close()
        shutil.rmtree(self.world.settings.root)
        shutil.copytree(self._kept, self.world.settings.root)
        self._forget()
        self.world.registry.aliases = dict(self._aliases)
        return self.world
