import json
import os
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ml_platform.settings import Settings
from ml_platform.sources import IngestReport, arrivals, ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests.examples import at_most
from tests.object_stores import S3, s3_thread

SPEC = """\
description: Meters
partitions: {cadence: daily, start: 2024-03-09, timezone: America/New_York}
sources:
  SOURCES
examples: {source: csv, entity: [meter], columns: [reading]}
label: {task: regression}
model: {metric: mae}
"""
SOURCE = """\
  NAME:
    files: "*.NAME"
    event_time: read_at
    key: [meter]
    columns: {meter: VARCHAR, read_at: TIMESTAMPTZ, reading: DOUBLE}
    rules: ["reading >= 0"]
    late: LATE
"""
FORMATS = ("csv", "jsonl", "parquet")
DAYS = ("2024-03-09", "2024-03-10", "2024-03-11")
Row = tuple[str | None, str | None, str | None]

# Few keys and days, so that rows collide; the clocks change on the tenth.
rows = st.tuples(
    st.sampled_from(["a", "b", "c", None]),
    st.sampled_from(
        ["2024-03-09T12:00:00Z", "2024-03-10 01:59", "2024-03-11 23:59", "1999-01-01", "?", None]
    ),
    st.sampled_from(["1", "2.5", "-1", "x", 'say "hi"\n', None]),
)
# A line that is no row, by format; Parquet has none.
broken = st.sampled_from(
    [b"a,2024-03-09", b'{"meter":', b'"a,1,2', b"\xff,\xff,\xff", b'a"b,"c"d,']
)
files = st.lists(st.tuples(st.lists(rows, min_size=1, max_size=8), st.none() | broken), max_size=4)


def write(path: Path, rows: list[Row], line: bytes | None) -> int:
    """Write a file of the format of its name; the number of rows that have landed in it."""
    broken = 0 if line is None or path.suffix == ".parquet" else 1
    names = ("meter", "read_at", "reading")
    if path.suffix == ".csv":
        quoted = (
            ",".join("" if v is None else '"' + v.replace('"', '""') + '"' for v in row)
            for row in rows
        )
        content = "\n".join([",".join(names), *quoted]).encode()
    elif path.suffix == ".jsonl":
        dicts = (dict(zip(names, row, strict=True)) for row in rows)
        content = "\n".join(json.dumps(d) for d in dicts).encode()
    else:
        duckdb.execute(
            f"COPY (SELECT unnest(?::VARCHAR[]) AS meter, unnest(?::VARCHAR[]) AS read_at, "
            f"unnest(?::VARCHAR[]) AS reading) TO '{path}'",
            [list(column) for column in zip(*rows, strict=True)],
        )
        return len(rows)
    path.write_bytes(content + b"\n" + (line + b"\n" if broken and line else b""))
    return len(rows) + broken


def readable(row: Row) -> bool:
    return row[1] not in {None, "?"}


class Meters:
    """A use case with a source of each format."""

    def __init__(self, folder: Path, lake: Lake, late: str) -> None:
        self.lake, self.landing = lake, Path(lake.settings.landing_uri) / "meters"
        shutil.rmtree(self.landing, ignore_errors=True)
        self.landing.mkdir(parents=True)
        folder.mkdir(exist_ok=True)
        sources = "".join(SOURCE.replace("NAME", f).replace("LATE", late) for f in FORMATS)
        (folder / "use_case.yaml").write_text(SPEC.replace("  SOURCES\n", sources))
        (folder / "labels.sql").write_text(
            "SELECT meter, read_at AS event_time, reading AS label, known_at FROM csv"
        )
        (folder / "model.py").write_text("def build():\n    pass\n")
        self.use_case: UseCase = load_use_case(folder)

    def ingest(self, source: str, first: str = DAYS[0], last: str = DAYS[-1]) -> IngestReport:
        calendar = self.use_case.calendar
        window_range = Window(calendar.window(first).start, calendar.window(last).end)
        return ingest(self.lake, self.use_case, source, window_range, Commit("run-1", "abc"))

    def state(self) -> list[tuple[Any, ...]]:
        with self.lake.cursor("UTC") as cursor:
            return [
                cursor.execute(f"FROM lake.meters.{table} ORDER BY ALL").fetchall()
                for table in (*self.lake.tables(cursor, "meters") - {"landings"},)
            ]

    def drop(self) -> None:
        with self.lake.cursor() as cursor:
            cursor.execute("DROP SCHEMA IF EXISTS lake.meters CASCADE")


@settings(
    max_examples=at_most(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    source=st.sampled_from(FORMATS),
    late=st.sampled_from(["merge", "replace"]),
    first=files,
    then=files,
    archived=st.booleans(),
)
def test_rows_landed_are_rows_ingested_and_rows_quarantined(
    tmp_path: Path,
    shared_lake: Lake,
    source: str,
    late: str,
    first: list[tuple[list[Row], bytes | None]],
    then: list[tuple[list[Row], bytes | None]],
    archived: bool,
) -> None:
    meters = Meters(tmp_path / "meters", shared_lake, late)
    landed = 0
    try:
        for wave, landing in enumerate((first, then)):
            if wave and archived:
                shutil.rmtree(meters.landing)
                meters.landing.mkdir()
            for number, (rows, line) in enumerate(landing):
                path = meters.landing / f"{wave}{9 - number}.{source}"
                count = write(path, rows, line)
                os.utime(path, (1_700_000_000 + 10 * wave + number,) * 2)
                # A file without any readable time is refused as a whole.
                landed += count if any(readable(row) for row in rows) else 0
            if not landed:
                continue
            report = meters.ingest(source)
            for counts in report.windows.values():
                assert counts.landed == counts.ingested + counts.quarantined
            assert sum(counts.landed for counts in report.windows.values()) == landed
            before = meters.state()
            again = [meters.ingest(source), *(meters.ingest(source, day, day) for day in DAYS)]
            assert not any(c.changed for r in again for c in r.windows.values())
            assert meters.state() == before
    finally:
        meters.drop()


@pytest.fixture
def s3() -> Iterator[S3]:
    with s3_thread() as store:
        yield store


@pytest.mark.slow
def test_an_object_store_is_a_landing_folder_like_any_other(tmp_path: Path, s3: S3) -> None:
    store = s3.client
    lake = Lake(
        Settings(
            data=tmp_path,
            landing="s3://landing",
            lake_files="s3://landing/lake/",
            extensions=("httpfs",),
            secrets_sql=SecretStr(s3.secret_sql),
        )
    )
    local = Meters(tmp_path / "meters", Lake(Settings(data=tmp_path / "local")), "merge")
    local.lake.close()
    meters = local
    meters.lake = lake
    try:
        store.create_bucket(Bucket="landing")
        day = "2024-03-09T12:00:00Z"
        for source in FORMATS:
            for name, rows, line in (
                ("a", [("a", day, "1"), ("b", day, "x")], None),
                ("b", [("a", day, "2")], b"\xff,"),
            ):
                path = tmp_path / f"{name}.{source}"
                write(path, rows, line)
                store.put_object(
                    Bucket="landing", Key=f"meters/{path.name}", Body=path.read_bytes()
                )
            report = meters.ingest(source)
            total = 3 if source == "parquet" else 4
            (counts, *_) = report.windows.values()
            assert (counts.landed, counts.ingested, counts.quarantined) == (total, 1, total - 1)
            with lake.cursor() as cursor:
                found = cursor.execute(f"SELECT reading, _file FROM lake.meters.{source}")
                assert found.fetchall() == [(2.0, f"b.{source}")]

            def behind(source: str = source) -> list[str]:
                now = datetime.now(UTC)
                found = arrivals(lake, meters.use_case, source, Commit("sensor", "abc"), now)
                return [meters.use_case.calendar.key(window) for window in found.windows]

            assert behind() == []
            # Delivered again as it was: no news.
            key = f"meters/b.{source}"
            store.put_object(Bucket="landing", Key=key, Body=path.read_bytes())
            assert behind() == []
            write(path, [("a", day, "3")], None)
            # Object stores report whole seconds, and this object is as long as the one before.
            before = store.head_object(Bucket="landing", Key=key)["LastModified"]
            while datetime.now(UTC) < before + timedelta(seconds=1):
                time.sleep(0.05)
            store.put_object(Bucket="landing", Key=key, Body=path.read_bytes())
            assert behind() == ["2024-03-09"]
    finally:
        lake.close()
