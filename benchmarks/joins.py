"""The point-in-time join in several ways: `python -m benchmarks.joins WAY TASK`.

Does the join once for each line `go` on standard input and answers with its seconds, which end
when the rows are there in memory: an Arrow table, or a pandas frame.
"""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.year import USE_CASE
from ml_platform.features import join_sql
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake

Task = dict[str, Any]


def main(way: str, file: str) -> None:
    """Answer until standard input ends or `finish` is read."""
    task: Task = json.loads(Path(file).read_text(encoding="utf-8"))
    if way == "pandas":
        _serve(task, lambda: _by_pandas(task))
        return
    lake = Lake(Settings(data=Path(task["data"])))
    with suppress(BrokenPipeError), lake.cursor(task["timezone"]) as cursor:
        by_hand = way == "by hand"
        join = (lambda: _by_hand(cursor, task)) if by_hand else _by_platform(cursor, lake, task)
        _serve(task, join)


def _serve(task: Task, join: Callable[[], Any]) -> None:
    joined = None
    for line in sys.stdin:
        if line.strip() == "finish":
            break
        joined = None
        started, cpu_started = perf_counter(), process_time()
        joined = join()
        _answer(seconds=perf_counter() - started, cpu_seconds=process_time() - cpu_started)
    # Read before anything is counted, which takes memory too.
    peak = _peak_mib()
    _answer(peak_mib=peak, rows=len(joined), filled=_filled(task, joined))


def _answer(**values: float) -> None:
    print("answer " + json.dumps(values), flush=True)


def _peak_mib() -> float:
    # Not getrusage, whose maximum begins with that of the process this one was started by.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _filled(task: Task, joined: Any) -> int:
    names = [f"{view['name']}__{f}" for view in task["views"] for f in view["features"]]
    if isinstance(joined, pa.Table):
        return sum(len(joined) - joined.column(name).null_count for name in names)
    return int(joined[names].notna().to_numpy().sum())


def _by_platform(
    cursor: duckdb.DuckDBPyConnection, lake: Lake, task: Task
) -> Callable[[], pa.Table]:
    case = load_use_case(USE_CASE)
    views = tuple(view["name"] for view in task["views"])
    case = case.model_copy(update={"model": case.model.model_copy(update={"features": views})})
    zone = case.calendar.timezone
    start, end = (datetime.fromisoformat(task[b]).astimezone(zone) for b in ("start", "end"))

    def join() -> pa.Table:
        sql = join_sql(cursor, lake, case, Window(start, end), lake.snapshot(cursor))
        return cursor.execute(sql).to_arrow_table()

    return join


def _by_hand(cursor: duckdb.DuckDBPyConnection, task: Task) -> pa.Table:
    """What one would write for this use case alone, with the same columns in the same order."""
    schema = f"lake.{task['use_case']}"
    keys = {key for view in task["views"] for key in view["entity"]} | set(task["entity"])
    chosen = [f"e.{c}" for c in task["entity"]] + ["e.event_time"]
    chosen += [f"e.{name}" for name in task["request"]]
    joins = []
    for view in task["views"]:
        name = view["name"]
        on = " AND ".join(f"e.{key} = {name}.{key}" for key in view["entity"])
        joins.append(
            f"ASOF LEFT JOIN {schema}.{view['table']} {name} "
            f"ON {on} AND e.event_time >= {name}.event_time"
        )
        # In the use case's zone, whose clocks say how long a day is; pandas and Feast count hours.
        fresh = f"e.event_time <= {name}.event_time + {view['ttl_sql']}"
        chosen += [
            f"CASE WHEN {fresh} THEN {name}.{f} END AS {name}__{f}" for f in view["features"]
        ]
    plain = [key for key in sorted(keys) if key not in task["request"]]
    return cursor.execute(
        f"""SELECT {", ".join(chosen)}
        FROM (
            SELECT {task["event_time"]} AS event_time, {", ".join([*plain, *task["columns"]])}
            FROM {schema}.{task["source"]}
            WHERE {task["event_time"]} >= '{task["start"]}'
            AND {task["event_time"]} < '{task["end"]}'
        ) e
        {" ".join(joins)}
        ORDER BY e.event_time, {", ".join(f"e.{c}" for c in task["entity"])}"""
    ).to_arrow_table()


def _by_pandas(task: Task) -> pd.DataFrame:
    folder = Path(task["folder"])
    joined = pq.read_table(folder / "examples.parquet").to_pandas()
    for view in task["views"]:
        name = view["name"]
        right = pq.read_table(folder / f"{name}.parquet").to_pandas().drop(columns="window_start")
        right = right.rename(columns={f: f"{name}__{f}" for f in view["features"]})
        joined = pd.merge_asof(
            joined,
            right,
            on="event_time",
            by=view["entity"],
            tolerance=pd.Timedelta(seconds=view["ttl_seconds"]),
        )
    return joined


if __name__ == "__main__":
    main(*sys.argv[1:])
