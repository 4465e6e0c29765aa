import gzip
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from ml_platform.errors import FileRefused, LandingError
from ml_platform.sources import IngestReport, ingest
from ml_platform.sources.arrivals import arrivals
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake

COMMIT = Commit("run-1", "abc")
SPEC = """\
description: Rides
partitions: {cadence: daily, start: 2024-03-01, timezone: America/New_York}
sources:
  rides: {files: "FILES", event_time: began, key: [ride], columns: COLUMNS EXTRA}
examples: {source: rides, entity: [ride], columns: ["1 AS one"]}
label: {task: regression}
model: {metric: mae}
"""
COLUMNS = "{ride: VARCHAR, began: TIMESTAMPTZ, distance: DOUBLE, seats: INTEGER}"
HEADER = "ride,began,distance,seats\n"
Row = tuple[Any, ...]


class Rides:
    """A use case with one source, and its landing folder."""

    def __init__(self, folder: Path, lake: Lake) -> None:
        self.folder, self.lake = folder, lake
        self.landing = Path(lake.settings.landing_uri) / "rides"
        shutil.rmtree(self.landing, ignore_errors=True)
        self.landing.mkdir(parents=True)
        self.landed = 0
        self.declare()

    def declare(self, extra: str = "", files: str = "*.csv", columns: str = COLUMNS) -> None:
        text = SPEC.replace("FILES", files).replace("COLUMNS", columns)
        text = text.replace("EXTRA", f", {extra}" if extra else "")
        self.folder.mkdir(exist_ok=True)
        (self.folder / "use_case.yaml").write_text(text)
        (self.folder / "labels.sql").write_text(
            "SELECT ride, began::TIMESTAMPTZ AS event_time, 1.0 AS label, known_at FROM rides"
        )
        (self.folder / "model.py").write_text("def build():\n    pass\n")
        self.use_case: UseCase = load_use_case(self.folder)

    def land(self, name: str, content: str | bytes) -> Path:
        """Write a file that is newer than all before it."""
        file = self.landing / name
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.landed += 1
        os.utime(file, (1_700_000_000 + self.landed,) * 2)
        return file

    def ingest(
        self, first: str = "2024-03-01", last: str = "2024-03-03", **options: Any
    ) -> IngestReport:
        calendar = self.use_case.calendar
        window_range = Window(calendar.window(first).start, calendar.window(last).end)
        return ingest(self.lake, self.use_case, "rides", window_range, COMMIT, **options)

    def counts(self, report: IngestReport) -> dict[str, tuple[int, int, int]]:
        return {
            self.use_case.calendar.key(window): (c.landed, c.ingested, c.quarantined)
            for window, c in report.windows.items()
            if c.landed or c.ingested or c.quarantined
        }

    def query(self, sql: str) -> list[Row]:
        with self.lake.cursor(self.use_case.timezone) as cursor:
            cursor.execute("USE lake.rides")
            return cursor.execute(sql).fetchall()

    def rides(self, columns: str = "ride, distance") -> list[Row]:
        return self.query(f"SELECT {columns} FROM rides ORDER BY began, ride")

    def reasons(self) -> list[Row]:
        return self.query("SELECT _file, _row, reason FROM quarantine ORDER BY _file, _row")


@pytest.fixture
def rides(tmp_path: Path, shared_lake: Lake) -> Iterator[Rides]:
    # Attaching costs as much as ingesting, emptying the lake does not.
    yield Rides(tmp_path / "rides", shared_lake)
    with shared_lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.rides CASCADE")


def test_a_row_that_keeps_the_contract_is_stored_with_its_file_and_line(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01 08:00,1.5,2\nr2,2024-03-02T08:00:00Z,,NA\n")
    report = rides.ingest()
    assert rides.rides("ride, distance, seats, _file, _row") == [
        ("r1", 1.5, 2, "a.csv", 2),
        ("r2", None, None, "a.csv", 3),
    ]
    assert rides.counts(report) == {"2024-03-01": (1, 1, 0), "2024-03-02": (1, 1, 0)}
    assert (report.files, report.refused, report.ignored_columns) == (1, (), ())


def test_a_time_without_an_offset_is_one_of_the_use_cases_zone(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01 23:30,1,1\nr2,2024-03-02T04:30:00Z,1,1\n")
    rides.ingest()
    ((first,), (second,)) = rides.query("SELECT began FROM rides ORDER BY ride")
    assert first == second == datetime(2024, 3, 2, 4, 30, tzinfo=UTC)


@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE"])
def test_an_event_time_may_be_declared_without_a_zone(rides: Rides, kind: str) -> None:
    rides.declare(columns=COLUMNS.replace("TIMESTAMPTZ", kind))
    rides.land("a.csv", f"{HEADER}r1,2024-03-02,1,1\n")
    assert rides.counts(rides.ingest()) == {"2024-03-02": (1, 1, 0)}
    assert rides.rides("known_at") == [(datetime(2024, 3, 2, 5, tzinfo=UTC),)]


def test_known_at_is_evaluated_and_a_row_without_one_is_quarantined(rides: Rides) -> None:
    rides.declare('known_at: "began + to_hours(seats)"')
    rides.land("a.csv", f"{HEADER}r1,2024-03-01T12:00:00Z,1,2\nr2,2024-03-01T12:00:00Z,1,\n")
    rides.ingest()
    assert rides.rides("ride, known_at") == [("r1", datetime(2024, 3, 1, 14, tzinfo=UTC))]
    assert rides.reasons() == [("a.csv", 3, "known_at is missing: began + to_hours(seats)")]


def test_a_landed_known_at_column_says_when_a_row_was_known(rides: Rides) -> None:
    columns = "{ride: VARCHAR, began: TIMESTAMPTZ, known_at: TIMESTAMPTZ}"
    rides.declare("known_at: known_at", columns=columns)
    rides.land("a.csv", "ride,began,known_at\nr1,2024-03-01T12:00:00Z,2024-03-01T13:00:00Z\n")
    rides.ingest()
    assert rides.rides("known_at") == [(datetime(2024, 3, 1, 13, tzinfo=UTC),)]


def test_a_row_that_breaks_the_contract_is_quarantined(rides: Rides) -> None:
    fails = "if(seats = 0, 'x', '1')::INTEGER = 1"
    rides.declare(f'required: [distance], rules: ["distance >= 0", "{fails}"]')
    lines = {
        "r1,2024-03-01,abc,1": "distance: 'abc' is not DOUBLE",
        "r1,2024-03-01,1,1.5": "seats: '1.5' is not INTEGER",
        "r1,2024-03-01,x,y": "distance: 'x' is not DOUBLE; seats: 'y' is not INTEGER",
        ",2024-03-01,1,1": "ride is missing",
        "r1,,1,1": "began is missing",
        "r1,soon,1,1": "began: 'soon' is not TIMESTAMPTZ",
        "r1,infinity,1,1": "began is too far ahead for any calendar",
        "r1,2024-03-01,nan,1": "distance is missing",
        "r1,2024-03-01,-1,1": "breaks the rule: distance >= 0",
        "r1,2024-03-01,1,0": f"breaks the rule: {fails}",
        "r1,2024-02-29 12:00,1,1": "began is before the first window: 2024-02-29 12:00:00-05",
        "good,2024-03-01,1,1": "duplicate key (ride): row 2 came first",
    }
    rides.land("a.csv", f"{HEADER}good,2024-03-01,1,1\n" + "\n".join(lines))
    report = rides.ingest()
    assert rides.counts(report) == {"2024-03-01": (len(lines) + 1, 1, len(lines))}
    assert rides.reasons() == [("a.csv", n, r) for n, r in enumerate(lines.values(), start=3)]


def test_a_time_that_comes_twice_needs_an_offset(rides: Rides) -> None:
    hours = ("00:59", "01:30", "01:30:00-04:00", "01:30:00-05:00", "02:00")
    lines = [f"{n},2024-11-03 {hour},1,1\n" for n, hour in enumerate(hours)]
    rides.land("a.csv", HEADER + "".join(lines))
    rides.ingest("2024-11-03", "2024-11-03")
    twice = (
        "began: '2024-11-03 01:30' comes twice in America/New_York: write an offset after the "
        "seconds"
    )
    assert rides.reasons() == [("a.csv", 3, twice)]
    utc = "strftime(timezone('UTC', began), '%H:%M')"
    assert rides.query(f"SELECT ride, {utc} FROM rides ORDER BY ride") == [
        ("0", "04:59"), ("2", "05:30"), ("3", "06:30"), ("4", "07:00"),
    ]  # fmt: skip


def test_a_line_that_cannot_be_parsed_is_quarantined_alone(rides: Rides) -> None:
    lines = {
        b"r1,2024-03-01": "2 values where the header names 4 columns",
        b"r1,2024-03-01,1,1,1": "5 values where the header names 4 columns",
        b'r1,2024-03-01,"1"x,1': "a quote inside a value",
        b'"r1,2024-03-01,1,1': "a quote that is not closed",
        b"r\xff,2024-03-01,1,1": "is not UTF-8 text",
        b"r1,2024-03-01,abc,1": "distance: 'abc' is not DOUBLE",
    }
    for n, line in enumerate(lines):
        content = f"{HEADER}a{n},2024-03-01,1,1\n".encode() + line + b"\n"
        rides.land(f"{n}.csv", content + f"b{n},2024-03-01,1,1\n".encode())
    report = rides.ingest()
    expected = (3 * len(lines), 2 * len(lines), len(lines))
    assert rides.counts(report) == {"2024-03-01": expected}
    assert rides.reasons() == [(f"{n}.csv", 3, r) for n, r in enumerate(lines.values())]
    assert all(json.loads(r) for (r,) in rides.query("SELECT record FROM quarantine"))


def test_csv_files_may_be_written_with_semicolons_commas_and_other_times(rides: Rides) -> None:
    rides.land("plain.csv", "ride;began;distance;seats\na;01.03.2024 10:00;1,5;2\n")
    (refused,) = rides.ingest().refused
    assert refused.problem == ('its values are separated by ";"; declare `csv: {separator: ";"}`')

    rides.declare('csv: {separator: ";", decimal: ",", times: ["%d.%m.%Y %H:%M", "%d.%m.%Y"]}')
    rides.land(
        "more.csv",
        "ride;began;distance;seats\nb;02.03.2024;1234,25;2,0\nc;02.03.2024;1.234;1\n"
        'd;02.03.2024;1.234,5;\ne;2024-03-02;1;1,5\nf;2.3.2024;"7\nx;2.3.2024;nan;\n',
    )

    rides.ingest()

    assert rides.query("SELECT ride, began, distance, seats FROM rides.rides ORDER BY ride") == [
        ("a", datetime(2024, 3, 1, 15, tzinfo=UTC), 1.5, 2),
        ("b", datetime(2024, 3, 2, 5, tzinfo=UTC), 1234.25, 2),
        ("x", datetime(2024, 3, 2, 5, tzinfo=UTC), None, None),
    ]
    number = "DOUBLE with a decimal comma and no thousands separator"
    assert rides.query("SELECT _row, reason FROM rides.quarantine ORDER BY _row") == [
        (3, f"distance: '1.234' is not {number}"),
        (4, f"distance: '1.234,5' is not {number}"),
        (5, "began: '2024-03-02' is not TIMESTAMPTZ written as %d.%m.%Y %H:%M or %d.%m.%Y; "
            "seats: '1,5' is not INTEGER with a decimal comma and no thousands separator"),
        (6, "a quote that is not closed"),
    ]  # fmt: skip


def test_a_rule_about_a_missing_value_holds(rides: Rides) -> None:
    rides.declare('rules: ["distance > 5"]')
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,,1\n")
    assert rides.counts(rides.ingest()) == {"2024-03-01": (1, 1, 0)}


def test_the_quarantined_record_is_the_row_as_it_landed(rides: Rides) -> None:
    rides.land("a.csv", "ride,note,began,distance,seats\nr1,hm,2024-03-01,x1,01\nr2,n,2024-03-01\n")
    report = rides.ingest()
    records = rides.query("SELECT source, record FROM quarantine ORDER BY _row")
    row = {"ride": "r1", "note": "hm", "began": "2024-03-01", "distance": "x1", "seats": "01"}
    assert [(source, json.loads(record)) for source, record in records] == [
        ("rides", row),
        ("rides", {"text": "r2,n,2024-03-01"}),
    ]
    assert report.ignored_columns == ("note",)


def test_rows_without_a_readable_time_count_where_their_file_begins(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,?,1,1\nr2,2024-03-02,1,1\nr3,2024-03-01,1,1\nr4,,1,1\n")
    expected = {"2024-03-01": (1, 1, 0), "2024-03-02": (3, 1, 2)}
    assert rides.counts(rides.ingest()) == expected
    assert rides.counts(rides.ingest("2024-03-02", "2024-03-02")) == {"2024-03-02": (3, 1, 2)}


def test_blank_lines_and_line_breaks_in_quotes_are_no_mistakes(rides: Rides) -> None:
    rides.land("a.csv", f'\ufeff{HEADER}\n"r\n1",2024-03-01,1,1\r\n\nr2,2024-03-01,1')
    rides.ingest()
    assert rides.rides("ride, _row") == [("r\n1", 3)]
    assert rides.reasons() == [("a.csv", 6, "3 values where the header names 4 columns")]


def test_zipped_files_are_read_too(rides: Rides) -> None:
    rides.declare(files="*.csv.gz")
    rides.land("a.csv.gz", gzip.compress(f"{HEADER}r1,2024-03-01,1,1\n".encode()))
    rides.land("b.csv.gz", gzip.compress(f"{HEADER}r2,2024-03-01,1,1\nr3\n".encode()))
    assert rides.counts(rides.ingest()) == {"2024-03-01": (3, 2, 1)}


def test_json_lines_that_are_no_objects_are_quarantined_with_their_number(rides: Rides) -> None:
    rides.declare(files="*.jsonl")
    good = '{"ride": "r%d", "began": "2024-03-01", "distance": 1.5, "seats": %s, "more": [1]}\n'
    rides.land("a.jsonl", good % (1, 2))
    rides.land("b.jsonl", f"{good % (2, 'null')}\n[1]\n{{oops\n{good % (3, 2.5)}")
    report = rides.ingest()
    assert rides.rides("ride, distance, seats, _row") == [("r1", 1.5, 2, 1), ("r2", 1.5, None, 1)]
    assert rides.reasons() == [
        ("b.jsonl", 3, "is not a JSON object"),
        ("b.jsonl", 4, "is not JSON"),
        ("b.jsonl", 5, "seats: '2.5' is not INTEGER"),
    ]
    assert report.ignored_columns == ("more",)


def test_parquet_values_are_cast_from_their_own_types(rides: Rides) -> None:
    rides.declare(files="*.parquet")
    duckdb.execute(
        f"""COPY (FROM (VALUES (1, TIMESTAMP '2024-03-01 08:00', 2.5, 2.0, {{'a': {{'b': 1}}}}),
            (2, TIMESTAMP '2024-03-01 09:00', 'nan'::FLOAT, 2.5, NULL))
        t(ride, began, distance, seats, nested)) TO '{rides.landing}/a.parquet'"""
    )
    report = rides.ingest()
    assert rides.rides("ride, distance, seats, _row") == [("1", 2.5, 2, 1)]
    assert rides.reasons() == [("a.parquet", 2, "seats: '2.5' is not INTEGER")]
    assert report.ignored_columns == ("nested",)


def parquet(query: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "written.parquet"
        duckdb.execute(f"COPY ({query}) TO '{file}'")
        return file.read_bytes()


REFUSED: dict[str, dict[bytes, str]] = {
    "csv": {
        b"": "is empty",
        b"\0\1\2\3" * 100: "is not a CSV file: its first line is not a header",
        b"\xff\xfe,": "is not a CSV file: its first line is not UTF-8 text",
        b"\nride,began\n": "its first line is blank; the header belongs there",
        b"ride,began,distanse,seats\n": "no column 'distance'; it has ride, began, distanse, "
        "seats. Did you mean 'distanse'?",
        b"ride,began,began,distance,seats\n": "column 'began' stands in it twice; rename one",
        f"{HEADER}r1,?,1,1\nr2,,1,1\n".encode(): "none of its 2 rows has a readable began; "
        "the first one: began: '?' is not TIMESTAMPTZ",
    },
    "csv.gz": {
        b"nonsense": "cannot be unzipped: ",
        gzip.compress(HEADER.encode() * 9999)[:-40]: "cannot be unzipped: ",
    },
    "jsonl": {
        b'{"ride": 1}\n': "no column 'began'; it has ride",
        b"what\n": "none of its lines is a JSON object",
    },
    "parquet": {
        b"PAR1 nonsense PAR1": "cannot be read as Parquet: ",
        parquet("SELECT 1 AS ride"): "no column 'began'; it has ride",
    },
}


@pytest.mark.parametrize("ending", REFUSED)
def test_a_file_that_cannot_be_read_fails_alone(rides: Rides, ending: str) -> None:
    rides.declare(files=f"*.{ending}")
    line = f"{HEADER}r1,2024-03-01,1,1\n".encode()
    good = {
        "csv": line,
        "csv.gz": gzip.compress(line),
        "jsonl": b'{"ride": 1, "began": "2024-03-01", "distance": 1, "seats": 1}\n',
        "parquet": parquet("SELECT 1 AS ride, '2024-03-01' AS began, 1 AS distance, 1 AS seats"),
    }
    rides.land(f"a.{ending}", good[ending])
    for n, content in enumerate(REFUSED[ending]):
        rides.land(f"b{n}.{ending}", content)
    rides.land(f"c.{ending}", good[ending])
    report = rides.ingest()
    assert rides.counts(report) == {"2024-03-01": (2, 1, 1)}
    for n, (refused, problem) in enumerate(
        zip(report.refused, REFUSED[ending].values(), strict=True)
    ):
        assert refused.file == f"b{n}.{ending}"
        assert refused.problem.startswith(problem)
        assert str(rides.landing) not in refused.problem


def test_a_refused_file_is_reported_until_it_changes(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.land("b.csv", "")
    first, second = rides.ingest(), rides.ingest("2024-03-03")
    assert [str(e) for r in (first, second) for e in r.refused] == ["b.csv: is empty"] * 2
    rides.land("b.csv", f"{HEADER}r2,2024-03-01,1,1\n")
    assert rides.ingest().refused == ()
    assert rides.rides("ride") == [("r1",), ("r2",)]


def test_a_file_that_breaks_keeps_what_was_ingested_of_it(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.ingest()
    rides.land("a.csv", "")
    report = rides.ingest()
    assert [type(error) for error in report.refused] == [FileRefused]
    assert rides.counts(report) == {"2024-03-01": (1, 1, 0)}


def test_a_later_file_corrects_single_rows(rides: Rides) -> None:
    rides.land("b.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-01,1,1\n")
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,9,1\n")
    assert rides.counts(rides.ingest()) == {"2024-03-01": (3, 2, 1)}
    assert rides.rides() == [("r1", 9.0), ("r2", 1.0)]
    assert rides.reasons() == [("b.csv", 2, "superseded by a.csv:2")]


def test_a_correction_that_breaks_the_contract_corrects_nothing(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.land("b.csv", f"{HEADER}r1,2024-03-01,wrong,1\n")
    rides.ingest()
    assert rides.rides() == [("r1", 1.0)]


def test_a_later_file_may_replace_whole_windows(rides: Rides) -> None:
    rides.declare("late: replace")
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-01,1,1\nr3,2024-03-02,1,1\n")
    rides.land("b.csv", f"{HEADER}r1,2024-03-01,9,1\n")
    report = rides.ingest()
    assert rides.counts(report) == {"2024-03-01": (3, 1, 2), "2024-03-02": (1, 1, 0)}
    assert rides.rides() == [("r1", 9.0), ("r3", 1.0)]
    assert {reason for *_, reason in rides.reasons()} == {"superseded by b.csv"}


@pytest.mark.slow
def test_rows_of_an_archived_file_stay_and_can_be_corrected(rides: Rides) -> None:
    first = rides.land(
        "a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-01,1,1\nr3,2024-03-01,x,1\n"
    )
    rides.ingest()
    first.unlink()
    assert rides.counts(rides.ingest()) == {"2024-03-01": (3, 2, 1)}
    rides.land("b.csv", f"{HEADER}r1,2024-03-01,9,1\n")
    for _ in range(2):
        assert rides.counts(rides.ingest()) == {"2024-03-01": (4, 2, 2)}
    assert rides.rides() == [("r1", 9.0), ("r2", 1.0)]


def test_an_archived_correction_still_wins_over_the_file_it_corrected(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    later = rides.land("b.csv", f"{HEADER}r1,2024-03-01,9,1\n")
    rides.ingest()
    later.unlink()
    assert rides.counts(rides.ingest()) == {"2024-03-01": (2, 1, 1)}
    assert rides.rides() == [("r1", 9.0)]


def test_a_rewritten_file_takes_its_old_rows_with_it(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-02,x,1\n")
    rides.ingest()
    rides.land("a.csv", f"{HEADER}r1,2024-03-03,1,1\n")
    assert rides.counts(rides.ingest()) == {"2024-03-03": (1, 1, 0)}
    assert rides.reasons() == []


def test_only_the_windows_of_the_range_are_written(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-02,1,1\nr3,2024-03-03,x,1\n")
    report = rides.ingest("2024-03-02", "2024-03-02")
    assert rides.rides("ride") == [("r2",)]
    assert rides.counts(report) == {"2024-03-02": (1, 1, 0)}
    assert rides.reasons() == []


@pytest.mark.slow
def test_two_sources_share_the_quarantine(rides: Rides, tmp_path: Path) -> None:
    rides.declare(files="r*.csv")
    text = (rides.folder / "use_case.yaml").read_text()
    line = next(line for line in text.splitlines() if "rides:" in line and "files" in line)
    other = line.replace("rides:", "walks:").replace("r*.csv", "w*.csv")
    (rides.folder / "use_case.yaml").write_text(text.replace(line, f"{line}\n{other}"))
    rides.use_case = load_use_case(rides.folder)
    for name in ("r.csv", "w.csv"):
        rides.land(name, f"{HEADER}r1,2024-03-01,x,1\n")
    window_range = rides.use_case.calendar.window("2024-03-01")
    for source in ("rides", "walks", "rides"):
        ingest(rides.lake, rides.use_case, source, window_range, COMMIT)
    sources = rides.query("SELECT source, _file FROM quarantine ORDER BY 1")
    assert sources == [("rides", "r.csv"), ("walks", "w.csv")]


def test_ingesting_twice_changes_nothing(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-02,x,1\n")
    first, second = rides.ingest(), rides.ingest()
    assert second.snapshot == first.snapshot
    assert rides.counts(second) == rides.counts(first)
    changed = [sum(c.changed for c in report.windows.values()) for report in (first, second)]
    assert changed == [2, 0]


def test_days_one_by_one_are_the_same_as_all_at_once(rides: Rides, tmp_path: Path) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr1,2024-03-02,1,1\nr2,2024-03-03,x,1\n?\n")
    rides.land("b.csv", f"{HEADER}r3,2024-03-03,1,1\nr1,2024-03-01,7,1\n")
    for day in ("2024-03-03", "2024-03-01", "2024-03-02"):
        rides.ingest(day, day)
    one_by_one = rides.rides("*"), rides.reasons()
    report = rides.ingest()
    assert not any(counts.changed for counts in report.windows.values())
    assert (rides.rides("*"), rides.reasons()) == one_by_one


def test_files_of_other_days_are_looked_into_only_once(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    other = rides.land("b.csv", f"{HEADER}r2,2024-03-02,1,1\n")
    rides.ingest("2024-03-01", "2024-03-01")
    status = other.stat()
    other.write_bytes(b"x" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert rides.ingest("2024-03-01", "2024-03-01").refused == ()
    (refused,) = rides.ingest("2024-03-02", "2024-03-02").refused
    assert refused.file == "b.csv"


def test_a_changed_contract_judges_known_files_anew(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.ingest()
    rides.declare(files="*.csv", extra='rules: ["distance > 5"]')
    assert rides.counts(rides.ingest()) == {"2024-03-01": (1, 0, 1)}


@pytest.mark.slow
def test_a_file_that_somebody_still_writes_is_left_where_that_is_asked_for(rides: Rides) -> None:
    whole = rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.land("b.csv", f"{HEADER}r2,2024-03-01,1,1\nr3,2024-03-01")
    soon = datetime.fromtimestamp(whole.stat().st_mtime, UTC) + timedelta(
        seconds=rides.lake.settings.landing_settle_seconds + 2
    )
    report = rides.ingest(now=soon)
    assert (rides.counts(report), report.files) == ({"2024-03-01": (1, 1, 0)}, 1)
    # What is known already is not left, also where it has been touched since.
    assert rides.counts(rides.ingest()) == {"2024-03-01": (3, 2, 1)}
    assert rides.counts(rides.ingest(now=soon)) == {"2024-03-01": (3, 2, 1)}
    assert [row for row, *_ in rides.rides("ride")] == ["r1", "r2"]


def test_files_are_counted_that_have_rows_in_the_range_and_refused_ones_by_name(
    rides: Rides,
) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-02,x,1\n")
    rides.land("b.csv", f"{HEADER}r3,2024-03-01,1,1\n")
    gone = rides.land("c.csv", f"{HEADER}r4,2024-03-02,1,1\n")
    for name in ("z.csv", "y.csv"):
        rides.land(name, "")
    report = rides.ingest()
    assert (report.files, [e.file for e in report.refused]) == (3, ["y.csv", "z.csv"])
    gone.unlink()
    # Rows of a file that is gone stay, and it is not counted.
    report = rides.ingest("2024-03-02", "2024-03-02")
    assert (report.files, rides.counts(report)) == (1, {"2024-03-02": (2, 1, 1)})
    assert [e.file for e in report.refused] == ["y.csv", "z.csv"]


def test_a_window_whose_quarantine_changes_has_changed_and_the_digest_is_the_sources(
    rides: Rides,
) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\nr2,2024-03-02,1,1\n")
    first = rides.ingest()
    rides.land("b.csv", f"{HEADER}r3,2024-03-01,x,1\nr4,2024-03-03,1,1\n")
    second = rides.ingest()
    assert [counts.changed for counts in second.windows.values()] == [True, False, True]
    one, two, three = second.windows
    assert second.versions[one] == first.versions[one]
    assert second.versions[two] == first.versions[two]
    assert second.versions[three] != first.versions[three]


def test_a_table_of_rides_says_who_wrote_it_and_from_which_snapshot_on_it_read(
    rides: Rides,
) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    report = rides.ingest()
    ((author, begun),) = rides.query(
        "SELECT author, commit_extra_info->>'$.begun_at' FROM lake.snapshots() "
        f"WHERE snapshot_id = {report.snapshot}"
    )
    assert author == "run run-1, code abc"
    assert int(begun) < report.snapshot


def test_a_window_where_nothing_has_landed_counts_nothing(rides: Rides) -> None:
    rides.land("a.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    report = rides.ingest("2024-03-02", "2024-03-02")
    ((counts),) = report.windows.values()
    assert (counts.landed, counts.ingested, counts.quarantined, counts.changed) == (0, 0, 0, False)


def test_a_file_with_nothing_but_a_header_is_sound(rides: Rides) -> None:
    rides.land("a.csv", HEADER)
    report = rides.ingest()
    assert (rides.counts(report), report.refused) == ({}, ())


def test_that_nothing_ever_landed_is_an_error_that_says_where_it_should(rides: Rides) -> None:
    with pytest.raises(LandingError) as error:
        rides.ingest()
    folder = rides.landing
    assert str(error.value) == (
        f"rides/rides: no file matches '*.csv' in {folder}/; land one there, or correct "
        "`sources.rides.files` or the landing folder"
    )


def test_names_with_the_characters_of_globs_are_plain_names(rides: Rides) -> None:
    rides.declare(files="**/*.csv")
    (rides.landing / "day=1").mkdir()
    rides.land("day=1/a[1]*?.csv", f"{HEADER}r1,2024-03-01,1,1\n")
    rides.ingest()
    assert rides.rides("ride, _file") == [("r1", "day=1/a[1]*?.csv")]


def test_columns_may_be_called_anything(rides: Rides) -> None:
    names = ["line", "select", 'a "b" c', "x.y", "it's"]
    columns = ", ".join(f"{json.dumps(name)}: VARCHAR" for name in names)
    for ending, content in {
        "csv": ",".join(["ride", "began", *(f'"{n.replace(chr(34), chr(34) * 2)}"' for n in names)])
        + "\nr1,2024-03-01,0,1,2,3,4\n",
        "jsonl": json.dumps(
            {"ride": "r1", "began": "2024-03-01", **{n: i for i, n in enumerate(names)}}
        ),
    }.items():
        rides.declare(
            files=f"*.{ending}", columns=f"{{ride: VARCHAR, began: TIMESTAMPTZ, {columns}}}"
        )
        rides.land(f"a.{ending}", content)
        assert rides.counts(rides.ingest()) == {"2024-03-01": (1, 1, 0)}
        ((row),) = rides.rides(", ".join(f'"{n.replace(chr(34), chr(34) * 2)}"' for n in names))
        assert row == ("0", "1", "2", "3", "4")
        rides.query("DROP TABLE rides")


def test_hours_that_clocks_repeat_are_two_windows(rides: Rides) -> None:
    text = (rides.folder / "use_case.yaml").read_text()
    (rides.folder / "use_case.yaml").write_text(
        text.replace("cadence: daily, start: 2024-03-01", "cadence: hourly, start: 2024-11-03")
    )
    rides.use_case = load_use_case(rides.folder)
    rides.land("a.csv", f"{HEADER}r1,2024-11-03T05:30:00Z,1,1\nr2,2024-11-03T06:30:00Z,1,1\n")
    report = rides.ingest("2024-11-03-00:00", "2024-11-03-02:00")
    assert rides.counts(report) == {
        "2024-11-03-01:00": (1, 1, 0),
        "2024-11-03-01:00-0500": (1, 1, 0),
    }


@pytest.mark.parametrize("late", ["merge", "replace"])
def test_columns_may_be_called_as_those_of_the_platforms_own_tables(
    rides: Rides, late: str
) -> None:
    names = ["name", "path", "number", "size", "fingerprint", "modified_at", "written_at", "file",
             "row", "rows", "start", "first", "source", "reason", "record", "error", "by", "latest",
             "winner"]  # fmt: skip
    texts = ", ".join(f'"{name}": VARCHAR' for name in names)
    rides.declare(f"late: {late}", columns=f"{COLUMNS[:-1]}, {texts}}}")
    values = ",".join(f"the {name}" for name in names)
    rides.land("a.csv", f"{HEADER.strip()},{','.join(names)}\nr1,2024-03-01 09:00,1,1,{values}\n")
    windows = arrivals(rides.lake, rides.use_case, "rides", COMMIT, datetime.now(UTC)).windows
    assert [rides.use_case.calendar.key(window) for window in windows] == ["2024-03-01"]
    assert rides.counts(rides.ingest()) == {"2024-03-01": (1, 1, 0)}
    quoted = ", ".join(f'"{name}"' for name in names)
    assert rides.rides(quoted) == [tuple(f"the {name}" for name in names)]
    corrected = values.replace("the name", "another name")
    rides.land(
        "b.csv", f"{HEADER.strip()},{','.join(names)}\nr1,2024-03-01 09:00,1,1,{corrected}\n"
    )
    assert rides.counts(rides.ingest()) == {"2024-03-01": (2, 1, 1)}
    assert rides.rides("name") == [("another name",)]
