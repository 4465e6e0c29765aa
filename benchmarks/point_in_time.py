"""The point-in-time join, against the same join by hand, by pandas and by Feast, as rows grow."""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.contestants import FEAST as FEAST_ENVIRONMENT
from benchmarks.contestants import Contestant, environment
from benchmarks.result import Bench, Line, Result
from benchmarks.year import Year, prepared
from ml_platform.features.frame import examples_sql
from ml_platform.spec.use_case import UseCase, feature_table

LIMIT = 1.2
SIZES = {1: 3, 4: 2, 16: 1}
"""Repetitions by how many times the rows of the year are taken."""
WARMED_UP = 1
"""Only rows taken this often are joined once more before; the joins of more take long enough."""
FEW_VIEWS = ("carrier", "origin", "weather")
"""Views of the comparison that grows, enough for copies of their keys."""
SUFFIXED = {
    "schedule": ("flight_id", "carrier", "origin"),
    "carrier_features": ("carrier",),
    "origin_features": ("origin",),
    "weather_features": ("origin",),
}
MINE = ("the platform", "by hand", "pandas")
FEAST = "Feast"


@dataclass(frozen=True)
class Timed:
    """What one contestant took for one task."""

    seconds: float
    cpu_seconds: float
    peak_mib: float
    rows: int
    filled: int
    """Feature values that are not null: the same for all who answer the same question."""


def run(bench: Bench) -> Result:
    """Join all examples with all views, then with three views as rows grow."""
    year = prepared(bench)
    feast = environment(bench.shared / "feast-venv", FEAST_ENVIRONMENT)
    task = _task(year, year.use_case, bench.folder / "all")
    lines, notes = _compared("all views", task, MINE, None, 1)
    few = year.use_case.model_copy(
        update={"model": year.use_case.model.model_copy(update={"features": FEW_VIEWS})}
    )
    for size in SIZES:
        grown = _grown(year, size, bench.folder / f"lake_{size}") if size > 1 else year
        task = _task(grown, few, bench.folder / f"{size}x")
        names = (*MINE, FEAST) if size == 1 and isinstance(feast, Path) else MINE
        found, more = _compared(f"{len(FEW_VIEWS)} views, rows x {size}", task, names, feast, size)
        lines, notes = [*lines, *found], [*notes, *more]
    if isinstance(feast, str):
        notes.append(f"Not compared with Feast: {feast}")
    notes.append(
        "Each in a process of its own, taking turns; in brackets its CPU time and peak memory. "
        "Feast joins once, the others several times where rows are few. "
        "The platform and the query by hand read the lake, pandas and Feast one sorted Parquet "
        "file a table. Rows are multiplied by copying them under other keys."
    )
    return Result("The point-in-time join", tuple(lines), tuple(dict.fromkeys(notes)))


def _task(year: Year, use_case: UseCase, folder: Path) -> Path:
    """Describe a join in a file, beside plain Parquet files of the tables that it reads."""
    folder.mkdir()
    case, views = use_case, []
    with year.opened() as lake, lake.cursor(case.timezone) as cursor:
        snapshot = lake.snapshot(cursor)
        examples = examples_sql(cursor, lake, case, year.range, snapshot)
        tables = {"examples": examples}
        for name, view in case.model_views.items():
            tables[name] = f"FROM lake.{case.name}.{feature_table(name)}"
            views.append(
                {
                    "name": name,
                    "table": feature_table(name),
                    "entity": list(view.entity),
                    "ttl_seconds": view.ttl.seconds,
                    "ttl_sql": view.ttl.sql,
                    "features": view.features,
                }
            )
        for name, query in tables.items():
            file = folder / f"{name}.parquet"
            cursor.execute(f"COPY (FROM ({query}) ORDER BY event_time) TO '{file}'")
    described: dict[str, Any] = {
        "data": str(year.settings.root),
        "folder": str(folder),
        "use_case": case.name,
        "source": case.examples.source,
        "event_time": case.sources[case.examples.source].event_time,
        "timezone": case.timezone,
        "start": year.range.start.isoformat(),
        "end": year.range.end.isoformat(),
        "entity": list(case.examples.entity),
        "columns": list(case.examples.columns),
        "request": case.examples.request,
        "views": views,
    }
    file = folder / "task.json"
    file.write_text(json.dumps(described), encoding="utf-8")
    return file


def _grown(year: Year, size: int, folder: Path) -> Year:
    """A lake with `size` times the examples and features of the few views, under other keys."""
    grown = year.copy(folder)
    with grown.opened() as lake, lake.cursor() as cursor:
        for table, keys in SUFFIXED.items():
            name = f"lake.{year.use_case.name}.{table}"
            renamed = ", ".join(f"{key} || '~' || copy AS {key}" for key in keys)
            cursor.execute(
                f"INSERT INTO {name} SELECT rows.* REPLACE ({renamed}) "
                f"FROM {name} AS rows, range(1, {size}) AS copies(copy)"
            )
    return grown


def _compared(
    title: str, task: Path, names: tuple[str, ...], feast: Path | str | None, size: int
) -> tuple[list[Line], list[str]]:
    contestants = {
        n: Contestant(n, task, feast if isinstance(feast, Path) else None) for n in names
    }
    try:
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
        if size == WARMED_UP:
            for name in MINE:
                contestants[name].go()
        for repetition in range(SIZES[size]):
            for name, contestant in contestants.items():
                if repetition == 0 or name != FEAST:
                    taken[name].append(contestant.go())
        found = {
            name: Timed(*map(median, zip(*taken[name], strict=True)), **contestant.finish())
            for name, contestant in contestants.items()
        }
    finally:
        for contestant in contestants.values():
            contestant.stop()
    ours, *others = (found[name] for name in names)
    lines = [
        Line(
            f"{title}, {ours.rows:,} rows, against {name}",
            _shown(ours),
            _shown(other),
            ours.seconds / other.seconds,
            LIMIT if name == "by hand" else None,
        )
        for name, other in zip(names[1:], others, strict=True)
    ]
    notes = [
        f"{title}: {name} found {other.filled:,} feature values in {other.rows:,} rows, the "
        f"platform {ours.filled:,} in {ours.rows:,}."
        for name, other in zip(names[1:], others, strict=True)
        if (other.rows, other.filled) != (ours.rows, ours.filled)
    ]
    return lines, notes


def _shown(timed: Timed) -> str:
    return f"{timed.seconds:.2f} s ({timed.cpu_seconds:.2f} s, {timed.peak_mib:,.0f} MiB)"
