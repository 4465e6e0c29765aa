"""The review queue after a year of logged predictions, against a day of them.

`python -m benchmarks review`
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
from starlette.testclient import TestClient

from benchmarks.meters import declare
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.serving.records.segments import landed_as
from ml_platform.serving.worker import create_app
from ml_platform.settings import ServingSettings, Settings
from ml_platform.sources.tables import ingestions_table, landings_table, source_table
from ml_platform.spec.queries import literal
from ml_platform.spec.use_case import FEEDBACK, REQUESTS, UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, Table, replace_windows
from ml_platform.storage.tables import evolve

DAYS = (1, 28, 365)
WITHIN = 28
"""Days that a prediction waits."""
ROWS_A_DAY = 20_000
REVIEWED_A_DAY = 200
FILES_A_DAY = 100
"""Of feedback."""
DAYS_A_COMMIT = 30
REPETITIONS = 15
LIMIT_SECONDS = 0.5
GROWTH_LIMIT = 2.0
COMMIT = Commit("benchmark", "benchmark")
SPEC = """\
description: Meters
partitions: {cadence: daily, start: START}
sources:
  readings:
    files: "*.csv"
    event_time: read_at
    key: [meter, read_at]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, value: DOUBLE, flow: DOUBLE, place: VARCHAR}
examples: {source: readings, entity: [meter], columns: [value, flow, place]}
label: {task: binary, feedback: {reviews: win}}
model: {metric: roc_auc}
serving: {log: {}, review: {uncertain: [0.4, 0.6], within: 28d}}
"""


@dataclass(frozen=True)
class Kept:
    """A service whose use case has some days of predictions and reviews behind it."""

    use_case: UseCase
    client: TestClient

    def waiting(self, limit: int = 50) -> list[str]:
        answer = self.client.get(f"/review/meters?limit={limit}")
        return [each["prediction_id"] for each in answer.raise_for_status().json()["waiting"]]

    def say(self, prediction: str, what: dict[str, Any]) -> None:
        self.client.post(f"/review/meters/{prediction}", json=what).raise_for_status()


def run(bench: Bench) -> Result:
    """Fill the lakes, and list, answer and skip in each by turns."""
    now = datetime.now(UTC)
    clock = Clock()
    kept = {days: _fill(bench.folder / f"days_{days}", days, now) for days in DAYS}
    for each in kept.values():
        each.client.__enter__()
        each.waiting()
    for number in range(REPETITIONS):
        for days, each in kept.items():
            clock.time(f"list, {days}", partial(each.waiting, 20))
            first, second, *_ = each.waiting()
            clock.time(f"answer, {days}", partial(each.say, first, {"label": bool(number % 2)}))
            clock.time(f"skip, {days}", partial(each.say, second, {"skip": True}))
    for each in kept.values():
        each.client.__exit__(None, None, None)
    return _result(clock)


def _fill(folder: Path, days: int, now: datetime) -> Kept:
    # Whole days that are over: of what has not happened yet nobody knows a label.
    last = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    first = last - timedelta(days=days - 1)
    spec = SPEC.replace("START", f"{first:%Y-%m-%d}")
    use_case = declare(folder, spec, label="value > 1")
    settings = Settings(data=folder, use_cases=folder / "use_cases")
    lake = Lake(settings)
    with lake.cursor() as cursor:
        for begin, end in _ranges(first, last + timedelta(days=1)):
            for source, query in ((REQUESTS, _requests), (FEEDBACK, _feedback)):
                table = source_table(use_case, source)
                replace_windows(
                    lake, cursor, table, _whole(table, query(begin, end)),
                    time="event_time", calendar=use_case.calendar,
                    window_range=Window(begin, end), commit=COMMIT,
                )  # fmt: skip
        _note_files(lake, cursor, use_case, _land_files(settings, first, days))
    lake.close()
    app = create_app(settings, ServingSettings(grpc_port=0))
    return Kept(use_case, TestClient(app))


def _ranges(first: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    while first < end:
        last = min(first + timedelta(days=DAYS_A_COMMIT), end)
        yield first, last
        first = last


def _requests(begin: datetime, end: datetime) -> dict[str, str]:
    rows = ROWS_A_DAY * (end - begin).days
    return {
        "FROM": f"range({rows})",
        "prediction_id": _prediction(begin, 86_400 / ROWS_A_DAY),
        "event_time": _moment(begin, 86_400 / ROWS_A_DAY),
        "answered_at": _moment(begin, 86_400 / ROWS_A_DAY),
        "known_at": _moment(begin, 86_400 / ROWS_A_DAY),
        "mode": "'live'",
        "model_version": "1",
        "by_key": "true",
        "meter": "'m' || range % 5000",
        "value": "random()",
        "flow": "random()",
        "place": "'Albany'",
        "probability": "random()",
        "prediction": "true",
    }


def _feedback(begin: datetime, end: datetime) -> dict[str, str]:
    reviewed = REVIEWED_A_DAY * (end - begin).days
    return {
        "FROM": f"range({reviewed})",
        "feedback_id": f"'{begin:%Y%m%d}-' || range",
        "prediction_id": _prediction(begin, 86_400 / REVIEWED_A_DAY),
        "event_time": _moment(begin, 86_400 / REVIEWED_A_DAY),
        "known_at": _moment(begin, 86_400 / REVIEWED_A_DAY),
        "received_at": _moment(begin, 86_400 / REVIEWED_A_DAY),
        "label": "true",
        "kind": "'label'",
        "origin": "'review'",
    }


def _whole(table: Table, values: dict[str, str]) -> str:
    columns = {**dict.fromkeys(table.columns, "NULL"), "_row": "range", **values}
    rows = columns.pop("FROM")
    return (
        f"SELECT {', '.join(f'{value} AS {name}' for name, value in columns.items())} FROM {rows}"
    )


def _prediction(begin: datetime, seconds: float) -> str:
    moment = f"{begin.timestamp() * 1e6:.0f} + range * {1e6 * seconds:.0f}"
    return f"printf('%014x-0123456789-%016x-0', {moment}, {moment})"


def _moment(begin: datetime, seconds: float) -> str:
    start = literal(begin.isoformat())
    return f"{start}::TIMESTAMPTZ + to_microseconds((range * {1e6 * seconds:.0f})::BIGINT)"


def _land_files(settings: Settings, first: datetime, days: int) -> dict[str, datetime]:
    """Files of feedback that were ingested, as they stay where nobody moves them."""
    folder = Path(settings.landing_uri) / "meters"
    (folder / FEEDBACK).mkdir(parents=True)
    files: dict[str, datetime] = {}
    for number in range(FILES_A_DAY * days):
        at = first + timedelta(days=number / FILES_A_DAY)
        name = f"{FEEDBACK}/{landed_as(at)}-1-0.jsonl"
        files[name] = at
        (folder / name).touch()
        os.utime(folder / name, (at.timestamp(), at.timestamp()))
    return files


def _note_files(
    lake: Lake, cursor: duckdb.DuckDBPyConnection, use_case: UseCase, files: dict[str, datetime]
) -> None:
    landings, ingestions = landings_table(use_case), ingestions_table(use_case)
    cursor.execute(
        "CREATE TEMP TABLE files AS SELECT unnest(?::VARCHAR[]) AS file, "
        "unnest(?::TIMESTAMPTZ[]) AS landed_at",
        [list(files), list(files.values())],
    )

    def work(transaction: duckdb.DuckDBPyConnection) -> None:
        for table in (landings, ingestions):
            evolve(transaction, table, partitioned=False)
        start = "date_trunc('day', timezone('UTC', landed_at))"
        transaction.execute(
            f"INSERT INTO {landings.sql} (source, file, fingerprint, size, modified_at, written_at,"
            f" window_start, rows) SELECT '{FEEDBACK}', file, 'a-b', 500, "
            f"landed_at, landed_at, {start}, 2 "
            "FROM files ORDER BY landed_at"
        )
        transaction.execute(
            f"INSERT INTO {ingestions.sql} (source, file, fingerprint, window_start, snapshot) "
            f"SELECT '{FEEDBACK}', file, 'a-b', {start}, 1 FROM files ORDER BY landed_at"
        )

    lake.transact(cursor, COMMIT, work)


def _result(clock: Clock) -> Result:
    one, within, year = DAYS
    lines = []
    for what in ("list", "answer", "skip"):
        seconds = {days: clock.median(f"{what}, {days}") for days in DAYS}
        ours = f"{1000 * seconds[year]:.0f} ms"
        for against, bound, limit in (
            ("half a second", LIMIT_SECONDS, 1.0),
            (f"{within} days", seconds[within], GROWTH_LIMIT if what == "list" else None),
            ("a day", seconds[one], None),
        ):
            other = f"{1000 * bound:.0f} ms"
            named = f"{what}, after {year} days, against {against}"
            lines.append(Line(named, ours, other, seconds[year] / bound, limit))
    notes = (
        f"Over HTTP, to a service in the same process. {ROWS_A_DAY:,} predictions a day, a fifth "
        f"of them uncertain, {REVIEWED_A_DAY} reviewed; {FILES_A_DAY} files of feedback a day, "
        f"which are all still there. A prediction waits for {WITHIN} days.",
    )
    return Result("Review queue", tuple(lines), notes)
