"""Lakes of others: reading their tables against landing the same files, publishing against by hand.

`python -m benchmarks lakes`
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import SecretStr
from pyiceberg.catalog import load_catalog

from benchmarks.meters import declare
from benchmarks.publishing import ROWS as PUBLISHED
from benchmarks.publishing import predict
from benchmarks.result import Bench, Clock, Line, Result
from ml_platform.publish import publish_range
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

ROWS, DAYS = 1_000_000, 20
REPETITIONS = 3
COMMIT = Commit("benchmark", "benchmark")
COLUMNS = "meter, event_time, predicted, model_version"
SPEC = """\
description: Meters
partitions: {cadence: daily, start: 2024-01-01}
sources:
  readings:
    ORIGIN
    event_time: read_at
    key: [meter, read_at]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, value: DOUBLE, day: VARCHAR}
examples: {source: readings, entity: [meter], columns: ["value"]}
label: {task: regression}
model: {metric: mae}
publish:
  predicted: {table: others.shop.predicted, columns: [COLUMNS]}
"""


@dataclass(frozen=True)
class Kind:
    """One kind of a lake: as a source and a setting name it, and how its owner writes it."""

    name: str
    origin: str
    setting: str
    write: Callable[[pa.Table], object]
    """Another day of readings."""
    publish_by_hand: Callable[[list[pa.Table]], object]


def run(bench: Bench) -> Result:
    """Read a million rows of each kind of table, and publish to it, beside the plain way."""
    readings = list(_readings())
    clock = Clock()
    kinds = list(_kinds(bench.folder))
    for kind in kinds:
        for day in readings:
            kind.write(day)
    for repetition in range(REPETITIONS):
        for kind in kinds:
            folder = bench.folder / f"{kind.name}-{repetition}"
            use_case = declare(folder, _spec(kind.origin))
            lake = Lake(
                Settings(data=folder / "data", databases={"others": SecretStr(kind.setting)})
            )
            window_range = Window(use_case.calendar.start, _end(use_case))
            clock.time(f"read {kind.name}", partial(_ingest, lake, use_case, window_range))
            if kind.name != "landed":
                _publish(lake, use_case, kind, clock, repetition)
            lake.close()
    return Result("Lakes of others", tuple(_lines(kinds, clock)), NOTES)


NOTES = (
    f"Read: {ROWS:,} rows of four columns, {DAYS} files of a day each, into an empty lake; the "
    "other is landing the same rows as Parquet files.",
    f"Published: {PUBLISHED:,} predictions in 4 partitions into a table that is made, one "
    "transaction a partition, counted afterwards. By hand: DuckDB's COPY with PARTITION_BY, "
    "deltalake's write and pyiceberg's append of each partition, of rows that are in memory.",
    "CPU time of all threads; medians.",
)


def _spec(origin: str) -> str:
    return SPEC.replace("ORIGIN", origin).replace("COLUMNS", COLUMNS)


def _end(use_case: UseCase) -> datetime:
    window = use_case.calendar.window_at(use_case.calendar.start)
    for _ in range(DAYS - 1):
        window = use_case.calendar.window_at(window.end)
    return window.end


def _ingest(lake: Lake, use_case: UseCase, window_range: Window) -> None:
    report = ingest(lake, use_case, "readings", window_range, COMMIT)
    assert sum(counted.ingested for counted in report.windows.values()) == ROWS


def _readings() -> Iterator[pa.Table]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for day in range(DAYS):
            yield connection.execute(
                f"""SELECT 'meter ' || i % 1000 AS meter, TIMESTAMPTZ '2024-01-01 00:00:00Z' +
                INTERVAL {day} DAY + INTERVAL (i * 1000) MILLISECOND AS read_at,
                random() AS value, '2024-01-{day + 1:02d}' AS day
                FROM range({ROWS // DAYS}) r(i)"""
            ).to_arrow_table()


def _kinds(folder: Path) -> Iterator[Kind]:
    landed, hive, delta, ice = (folder / name for name in ("landed", "hive", "delta", "ice"))
    for each in (landed, hive, delta, ice):
        each.mkdir()
    catalog = load_catalog(
        "others", uri=f"sqlite:///{ice}/catalog.sqlite", warehouse=f"file://{ice}"
    )
    catalog.create_namespace("shop")
    schema = next(_readings()).schema
    catalog.create_table("shop.readings", schema)

    def write_file(root: Path, rows: pa.Table) -> None:
        day = rows["day"][0].as_py()
        if root == hive:
            (root / f"day={day}").mkdir()
            pq.write_table(rows.drop(["day"]), root / f"day={day}" / "part-0.parquet")
        else:
            pq.write_table(rows, root / f"{day}.parquet")

    def copy(parts: list[pa.Table]) -> None:
        with duckdb.connect() as connection:
            connection.register("rows", pa.concat_tables(parts))
            connection.execute(
                f"COPY rows TO '{hive}/by_hand' (FORMAT parquet, PARTITION_BY (event_date), "
                "OVERWRITE)"
            )

    def append(parts: list[pa.Table]) -> None:
        for number, rows in enumerate(parts):
            if not number:
                catalog.create_table("shop.by_hand", rows.schema)
            catalog.load_table("shop.by_hand").append(rows)
        catalog.drop_table("shop.by_hand")

    def write_delta(parts: list[pa.Table]) -> None:
        for number, rows in enumerate(parts):
            deltalake.write_deltalake(
                delta / "by_hand", rows, mode="append" if number else "overwrite",
                partition_by=["event_date"],
            )  # fmt: skip

    yield Kind("landed", f'files: "{landed}/*.parquet"', "sqlite:x",
               partial(write_file, landed), copy)  # fmt: skip
    yield Kind("parquet", f'files: "{hive}/day=*/*.parquet"', f"parquet:{hive}",
               partial(write_file, hive), copy)  # fmt: skip
    yield Kind(
        "delta", "delta: others.shop.readings", f"delta:{delta}",
        lambda rows: deltalake.write_deltalake(delta / "shop" / "readings", rows, mode="append"),
        write_delta,
    )  # fmt: skip
    yield Kind(
        "iceberg", "iceberg: others.shop.readings",
        f"iceberg:uri=sqlite:///{ice}/catalog.sqlite warehouse=file://{ice}",
        lambda rows: catalog.load_table("shop.readings").append(rows), append,
    )  # fmt: skip


def _publish(lake: Lake, use_case: UseCase, kind: Kind, clock: Clock, repetition: int) -> None:
    window_range = predict(lake, use_case)
    with lake.cursor() as cursor:
        rows = cursor.execute(
            f"""SELECT {COLUMNS}, CAST(timezone('UTC', event_time) AS DATE) AS event_date
            FROM lake.meters.predictions ORDER BY event_time"""
        ).to_arrow_table()
    step = PUBLISHED // 4
    parts = [rows.slice(start, step) for start in range(0, PUBLISHED, step)]
    clock.time(f"by hand {kind.name}", partial(kind.publish_by_hand, parts))
    table = f"others.shop.predicted{repetition}"
    declared = use_case.publish["predicted"].model_copy(update={"table": table})
    asked = use_case.model_copy(update={"publish": {"predicted": declared}})
    clock.time(
        f"publish {kind.name}",
        partial(publish_range, lake, asked, "predicted", window_range, COMMIT),
    )


def _lines(kinds: list[Kind], clock: Clock) -> Iterator[Line]:
    plain = clock.median_cpu("read landed")
    for kind in kinds[1:]:
        ours = clock.median_cpu(f"read {kind.name}")
        yield Line(
            f"read {kind.name}, CPU time", f"{ours:.2f} s", f"{plain:.2f} s", ratio=ours / plain,
            limit=2,
        )  # fmt: skip
    for kind in kinds[1:]:
        ours, hand = (clock.median_cpu(f"{what} {kind.name}") for what in ("publish", "by hand"))
        yield Line(
            f"publish {kind.name}, CPU time", f"{ours:.2f} s", f"{hand:.2f} s", ratio=hand / ours
        )
