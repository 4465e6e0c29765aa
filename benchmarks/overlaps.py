"""Processes that do everything at once on one lake: nothing is lost, nothing doubled, none fails.

`python -m benchmarks overlaps`
"""

import json
import multiprocessing
import random
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.deployments import KINDS, deployment, environment_set
from benchmarks.result import Bench, Line, Result
from ml_platform.backfill import computing, judge
from ml_platform.backfill.local_run import compute
from ml_platform.errors import (
    AnswerRefused,
    EmptyPartition,
    LabelsNotArrived,
    ModelNotFound,
    NoChampion,
    RollbackRefused,
    TableNotFound,
)
from ml_platform.features import compute_features, compute_labels, open_online_store, publish_views
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Registry, answer, newest_undecided
from ml_platform.registry import history as decisions_of
from ml_platform.registry.approvals import waiting
from ml_platform.rollback import plan_rollback, roll_back
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import tables_of
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from ml_platform.training import decide, train

PROCESSES = {"sqlite": 8, "postgres": 8, "s3": 16}
SECONDS = {"sqlite": 300, "postgres": 300, "s3": 600}
"""By deployment; many hands work on the one that is made for them."""
QUICK_SECONDS = 20
"""For a quick look."""
DAYS = 24
TRIPS_A_FILE = 30
NAME = "trips"
REFUSALS = (
    AnswerRefused, EmptyPartition, LabelsNotArrived, ModelNotFound, NoChampion, RollbackRefused,
    TableNotFound,
)  # fmt: skip
"""Answers that a command may rightly give: there is nothing to do, or somebody was faster."""
STAMPS = frozenset({"_snapshot", "snapshot", "scored_at", "labels_known_by"})
SPEC = """\
description: Trips
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  trips:
    files: "*.csv"
    event_time: started_at
    key: [trip]
    columns:
      {trip: BIGINT, started_at: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE, delay: DOUBLE}
    rules: ["distance > 0"]
features:
  city: {entity: [city], lookback: 2d, ttl: 2d}
  pace: {entity: [trip], lookback: 1d, ttl: 1d}
examples: {source: trips, entity: [trip], columns: [city, distance]}
label: {task: binary, horizon: 1d}
model: {build: "model:build", window: 20d, holdout: 4d, metric: roc_auc, min_rows: 20}
gate: {min_improvement: -1}
retrain: {approval: required}
monitoring: {window: 5d, reference_rows: 200}
"""
MODEL = """\
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder


def build():
    encode = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = make_column_transformer((encode, ["city"]), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=5))
"""
FILES = {
    "use_case.yaml": SPEC,
    "model.py": MODEL,
    "labels.sql": (
        "SELECT trip, started_at AS event_time, delay > 15 AS label, "
        "started_at + INTERVAL 6 HOUR AS known_at FROM trips\n"
    ),
    "features/city.sql": (
        "SELECT city, started_at AS event_time, count(*) OVER before AS trips, "
        "avg(distance) OVER before AS distance FROM trips "
        "WINDOW before AS (PARTITION BY city ORDER BY started_at "
        "RANGE BETWEEN INTERVAL 1 DAY PRECEDING AND CURRENT ROW)\n"
        "QUALIFY row_number() OVER (PARTITION BY city, started_at ORDER BY trip) = 1\n"
    ),
    "features/pace.sql": (
        "SELECT trip, started_at AS event_time, distance / 60 AS pace FROM trips\n"
    ),
}


@dataclass(frozen=True)
class Action:
    """One command of a process."""

    name: str
    seconds: float
    refused: bool
    failure: str = ""


def run(bench: Bench) -> Result:
    """Measure each deployment; with `--days`, for a short time."""
    lines: list[Line] = []
    notes: list[str] = []
    for kind in KINDS:
        folder = bench.folder / kind
        folder.mkdir()
        seconds = SECONDS[kind] if bench.days is None else QUICK_SECONDS
        with deployment(kind, folder) as environment:
            found, said = _campaign(kind, folder, environment, seconds)
        lines += found
        notes += said
    many = ", ".join(f"{PROCESSES[kind]} for {SECONDS[kind]} s on {kind}" for kind in KINDS)
    return Result("Processes that do everything at once", tuple(lines), (f"{many}.", *notes))


def _campaign(
    kind: str, folder: Path, environment: Mapping[str, str], seconds: int
) -> tuple[list[Line], list[str]]:
    _write_use_case(folder)
    with environment_set(environment):
        _begin(folder)
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=_work, args=(folder, number, seconds))
            for number in range(PROCESSES[kind])
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        ended = sum(worker.exitcode != 0 for worker in workers)
        actions = [
            Action(**each)
            for file in sorted(folder.glob("actions_*.json"))
            for each in json.loads(file.read_text())
        ]
        lost, doubled = _rows_wrong(folder)
        stale = _falsely_fresh(folder)
    failures = [action for action in actions if action.failure]
    slowest = max(actions, key=lambda action: action.seconds)
    lines = [
        Line(f"{kind}: commands", str(len(actions)), f"{sum(d.refused for d in actions)} refused"),
        Line(f"{kind}: commands that failed", ratio=float(len(failures) + ended), limit=0),
        Line(f"{kind}: landed rows that were lost", ratio=float(lost), limit=0),
        Line(f"{kind}: rows that are there twice", ratio=float(doubled), limit=0),
        Line(f"{kind}: windows called fresh that are not", ratio=float(stale), limit=0),
        Line(f"{kind}: longest command", f"{slowest.seconds:.1f} s", slowest.name),
    ]
    return lines, [f"{kind}, {action.name}: {action.failure}" for action in failures[:5]]


def _write_use_case(folder: Path) -> None:
    for name, text in FILES.items():
        file = folder / "use_cases" / NAME / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def _use_case(folder: Path) -> UseCase:
    return load_use_case(folder / "use_cases" / NAME)


def _begin(folder: Path) -> None:
    """Twelve days that are done, and two versions."""
    case, settings = _use_case(folder), Settings()
    lake, registry = Lake(settings), Registry(settings)
    for day in range(12):
        _land(settings, case, day, number=day)
    done = _days(case, 0, 12)
    for table in (NAME, "city_features", "pace_features", "labels"):
        compute(lake, registry, case, table, done, "begin")
    version = train(lake, registry, case, _day(case, 8).start, _commit(), tags={}).version
    decide(lake, registry, case, version, _commit(), decided_by="gate")
    answer(
        lake, registry, case, version, approve=True, decided_by="begin", reason="", commit=_commit()
    )
    train(lake, registry, case, _day(case, 10).start, _commit(), tags={})
    lake.close()


def _work(folder: Path, number: int, seconds: int) -> None:
    worker = _Worker(folder, number)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        worker.act()
    (folder / f"actions_{number}.json").write_text(json.dumps([vars(d) for d in worker.actions]))


class _Worker:
    """One process: lands files, and runs a command at random, again and again."""

    def __init__(self, folder: Path, number: int) -> None:
        self.settings = Settings()
        self.case = _use_case(folder)
        self.lake, self.registry = Lake(self.settings), Registry(self.settings)
        self.store = open_online_store(self.settings)
        self.random = random.Random(number)
        self.files = 1000 * (number + 1)
        self.actions: list[Action] = []
        self.commands: Mapping[str, Callable[[], Any]] = {
            "ingest": self._ingest,
            "features": lambda: self._table(self.random.choice(["city_features", "pace_features"])),
            "labels": lambda: self._table("labels"),
            "score": lambda: self._table("predictions"),
            "drift": lambda: self._table("drift_report"),
            "performance": lambda: self._table("performance_report"),
            "publish": lambda: publish_views(self.lake, self.store, self.case, self._range()),
            "train": self._train,
            "promote": self._promote,
            "answer": self._answer,
            "roll back": self._roll_back,
        }
        self.weights = [4, 4, 2, 2, 2, 2, 2, 0.3, 1, 1, 0.5]

    def act(self) -> None:
        (name,) = self.random.choices(list(self.commands), self.weights)
        started, refused, failure = time.monotonic(), False, ""
        try:
            self.commands[name]()
        except REFUSALS:
            refused = True
        except Exception as error:
            failure = f"{type(error).__name__}: {error} {traceback.format_exc(limit=-3)}"
        self.actions.append(Action(name, time.monotonic() - started, refused, failure))

    def _range(self) -> Window:
        first = self.random.randrange(DAYS)
        return _days(self.case, first, min(DAYS, first + self.random.choice([1, 1, 3, DAYS])))

    def _ingest(self) -> None:
        for _ in range(self.random.choice([0, 1, 2])):
            self.files += 1
            _land(self.settings, self.case, self.random.randrange(DAYS), self.files)
        self._table(NAME)

    def _table(self, table: str) -> None:
        compute(self.lake, self.registry, self.case, table, self._range(), "overlaps")

    def _train(self) -> None:
        cutoff = _day(self.case, self.random.randrange(9, DAYS)).start
        train(self.lake, self.registry, self.case, cutoff, _commit(), tags={})

    def _promote(self) -> None:
        version = newest_undecided(self.registry, self.case, decisions_of(self.lake, self.case))
        decide(self.lake, self.registry, self.case, version, _commit(), decided_by="gate")

    def _answer(self) -> None:
        open_ones = waiting(self.lake, self.case)
        if open_ones:
            answer(
                self.lake, self.registry, self.case, open_ones[-1].version,
                approve=self.random.random() < 0.7, decided_by="ada", reason="", commit=_commit(),
            )  # fmt: skip

    def _roll_back(self) -> None:
        plan = plan_rollback(self.lake, self.registry, self.case, decided_by="ada", reason="odd")
        roll_back(self.lake, self.registry, self.case, plan, _commit())


def _commit() -> Commit:
    return Commit("overlaps", "0", "overlaps")


def _day(case: UseCase, number: int) -> Window:
    return case.calendar.window_at(case.calendar.start + timedelta(days=number, hours=1))


def _days(case: UseCase, first: int, end: int) -> Window:
    return Window(_day(case, first).start, _day(case, end - 1).end)


def _land(settings: Settings, case: UseCase, day: int, number: int) -> None:
    """A file of one day: new trips, corrections of the day's first ones, and a row of no use."""
    rng = np.random.default_rng(number)
    own = 1_000_000 * (day + 1) + 100 * number + np.arange(TRIPS_A_FILE)
    own[:3] = 1_000_000 * (day + 1) + np.arange(3)
    distance = rng.uniform(1, 60, TRIPS_A_FILE)
    distance[-1] = -1
    minutes = rng.integers(0, 22 * 60, TRIPS_A_FILE)
    minutes[:3] = (60, 120, 180)
    start = _day(case, day).start.astimezone(UTC)
    rows = pd.DataFrame(
        {
            "trip": own,
            "started_at": [(start + timedelta(minutes=int(m))).isoformat() for m in minutes],
            "city": rng.choice(["Albany", "Boston", "Chicago"], TRIPS_A_FILE),
            "distance": distance.round(3),
            "delay": (distance / 3 + rng.normal(0, 6, TRIPS_A_FILE)).round(3),
        }
    )
    folder = Path(settings.landing_uri) / NAME
    folder.mkdir(parents=True, exist_ok=True)
    hidden = folder / f".{number}.part"
    hidden.write_text(rows.to_csv(index=False))
    hidden.rename(folder / f"{number}.csv")


def _rows_wrong(folder: Path) -> tuple[int, int]:
    """Landed rows that are neither ingested nor quarantined, and rows that are more than once.

    Counted after all windows that are behind have been ingested, as the sensor would do it.
    """
    case, settings = _use_case(folder), Settings()
    lake, registry = Lake(settings), Registry(settings)
    every = _days(case, 0, DAYS)
    states = judge(lake, case, every, [NAME])[NAME]
    for window, state in states.items():
        if state.is_due:
            compute(lake, registry, case, NAME, window, "sensor")
    behind = _not_ingested(lake, case)
    landed = sum(
        len(pd.read_csv(file)) for file in (Path(settings.landing_uri) / NAME).glob("*.csv")
    )
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"SELECT _file, _row FROM lake.{NAME}.{NAME} UNION ALL "
            f"SELECT _file, _row FROM lake.{NAME}.quarantine"
        ).fetchall()
        keys = cursor.execute(
            f"SELECT count(*) - count(DISTINCT (window_start, trip)) FROM lake.{NAME}.{NAME}"
        ).fetchall()
    lake.close()
    lost = landed - len(set(rows)) + behind
    return lost, len(rows) - len(set(rows)) + keys[0][0]


def _not_ingested(lake: Lake, case: UseCase) -> int:
    """Windows that the sensor would still ask for."""
    later = datetime.now(UTC) + timedelta(hours=1)
    found = arrivals(lake, case, NAME, _commit(), later)
    for window in found.windows:
        with computing(lake, case, NAME, window, "sensor") as commit:
            ingest(lake, case, NAME, window, commit)
    return len(arrivals(lake, case, NAME, _commit(), later).windows)


def _falsely_fresh(folder: Path) -> int:
    """Windows that are called fresh, and hold other rows once they are computed again."""
    case, settings = _use_case(folder), Settings()
    lake, registry = Lake(settings), Registry(settings)
    every = _days(case, 0, DAYS)
    wrong = 0
    for table in tables_of(case):
        states = judge(lake, case, every, [table])[table]
        changed = _changed(lake, registry, case, table, every)
        wrong += sum(not state.is_due for window, state in states.items() if window in changed)
    lake.close()
    return wrong


def _changed(
    lake: Lake, registry: Registry, case: UseCase, table: str, every: Window
) -> frozenset[Window]:
    before = _held(lake, case, table)
    commit = Commit("again", "0", "again")
    if table in case.sources:
        ingest(lake, case, table, every, commit)
    elif table.endswith("_features"):
        compute_features(lake, case, table.removesuffix("_features"), every, commit)
    elif table == "labels":
        compute_labels(lake, case, every, commit)
    elif table == "predictions":
        score(lake, registry, case, every, commit)
    elif table == "drift_report":
        report_drift(lake, registry, case, every, commit)
    else:
        # What was first reported stays by intent; the present figures are compared.
        report_performance(lake, case, every, commit, now=datetime.now(UTC))
    after = _held(lake, case, table)
    starts = {s for s in before.keys() | after.keys() if before.get(s) != after.get(s)}
    return frozenset(case.calendar.window_at(start.replace(tzinfo=UTC)) for start in starts)


def _held(lake: Lake, case: UseCase, table: str) -> dict[datetime, set[str]]:
    """Rows by start of the window, without stamps; floats to nine digits."""
    held: dict[datetime, set[str]] = {}
    with lake.cursor() as cursor:
        if table not in lake.tables(cursor, case.name):
            return held
        where = " WHERE revision = 'current'" if table == "performance_report" else ""
        relation = cursor.execute(f"SELECT * FROM lake.{case.name}.{table}{where}")
        names = [column[0] for column in relation.description]
        for row in relation.fetchall():
            kept = {
                name: f"{value:.9g}" if isinstance(value, float) else repr(value)
                for name, value in zip(names, row, strict=True)
                if name not in STAMPS
            }
            held.setdefault(row[names.index("window_start")], set()).add(str(kept))
    return held
