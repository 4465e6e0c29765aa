"""Examples of which stored rows say that they are known only after their event time."""

from pathlib import Path

import pytest

from ml_platform.features.too_late import find_too_late, find_too_late_landed
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Commit, Lake

SPEC = """\
name: {name}
description: How long will this ride take?
partitions: {{cadence: daily, start: 2024-03-01}}
sources:
  rides:
    files: "*.csv"
    event_time: began_at
    key: [ride]
    columns:
      {{ride: VARCHAR, began_at: TIMESTAMPTZ, ended_at: TIMESTAMPTZ, reported_at: TIMESTAMPTZ,
       seats: INTEGER, fare: DOUBLE}}
{source}
examples: {{source: rides, entity: [ride], columns: [{columns}]}}
label: {{task: regression}}
model: {{metric: mae}}
"""
ROWS = """\
ride,began_at,ended_at,reported_at,seats,fare
a,2024-03-01 10:00,2024-03-01 11:00,2024-03-01 09:00,1,12
b,2024-03-01 12:00,2024-03-01 12:30,2024-03-01 12:00,2,-1
c,2024-03-01 13:00,2024-03-01 13:10,2024-03-01 13:05,0,9
d,2024-03-01 14:00,,2024-03-01 13:55,3,0
"""


def rides(lake: Lake, root: Path, name: str, columns: str, *source: str) -> UseCase:
    folder = root / "use_cases" / name
    folder.mkdir(parents=True)
    lines = "\n".join(f"    {line}" for line in source)
    (folder / "use_case.yaml").write_text(SPEC.format(name=name, columns=columns, source=lines))
    (folder / "labels.sql").write_text(
        "SELECT ride, began_at AS event_time, epoch(ended_at - began_at) AS label, "
        "ended_at AS known_at FROM rides"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    use_case = load_use_case(folder)
    landing = Path(lake.settings.landing_uri) / name
    landing.mkdir(parents=True)
    (landing / "march.csv").write_text(ROWS)
    ingest(lake, use_case, "rides", use_case.calendar.window("2024-03-01"), Commit("test", "0"))
    return use_case


def said(lake: Lake, use_case: UseCase) -> list[str]:
    return [f"{each.where}: {each.rows} of {each.of}" for each in find_too_late(lake, use_case)]


def test_rows_that_are_known_after_their_event_time_are_counted(
    shared_lake: Lake, tmp_path: Path
) -> None:
    late = rides(shared_lake, tmp_path, "late", "seats", "known_at: reported_at")
    assert said(shared_lake, late) == ["sources.rides.known_at: 1 of 4"]
    (found,) = find_too_late(shared_lake, late)
    assert str(found) == (
        "sources.rides.known_at: 1 of 4 rows (25.0%) are known only after their event time, at "
        "which they are predicted; take as `event_time` the time from which on all of the row is "
        "known"
    )


def test_a_row_that_is_known_at_its_event_time_or_before_is_not_late(
    shared_lake: Lake, tmp_path: Path
) -> None:
    timely = rides(
        shared_lake, tmp_path, "timely", "seats", "known_at: least(reported_at, began_at)"
    )
    assert said(shared_lake, timely) == []


def test_a_request_column_that_lies_after_the_event_is_counted(
    shared_lake: Lake, tmp_path: Path
) -> None:
    ended = rides(shared_lake, tmp_path, "ended", "seats, ended_at, reported_at AS reported")
    assert said(shared_lake, ended) == [
        "examples.columns 'ended_at': 3 of 4",
        "examples.columns 'reported': 1 of 4",
    ]


def test_a_rule_over_what_no_request_brings_says_how_many_rows_it_keeps_out(
    shared_lake: Lake, tmp_path: Path
) -> None:
    ruled = rides(
        shared_lake, tmp_path, "ruled", "seats AS places", 'rules: ["fare > 0", "seats > 0"]'
    )
    # One of the rows breaks the other rule, which a request can show.
    assert said(shared_lake, ruled) == ["sources.rides.rules 'fare > 0': 2 of 3"]


def test_a_rule_that_no_row_breaks_is_not_said(shared_lake: Lake, tmp_path: Path) -> None:
    kept = rides(shared_lake, tmp_path, "kept", "seats", 'rules: ["fare > -5"]')
    assert said(shared_lake, kept) == []


def test_where_nothing_has_been_ingested_nothing_is_said(shared_lake: Lake, tmp_path: Path) -> None:
    late = rides(shared_lake, tmp_path, "empty_late", "seats", "known_at: reported_at")
    other = late.model_copy(update={"name": "never_ingested"})
    assert find_too_late(shared_lake, other) == ()


def test_of_what_has_landed_only_small_files_are_looked_into(
    shared_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = rides(shared_lake, tmp_path, "landed", "seats", "known_at: reported_at")
    settings = Settings(data=shared_lake.settings.data)
    stored = find_too_late(shared_lake, late)
    assert find_too_late_landed(settings, late) == stored != ()
    with shared_lake.cursor() as cursor:
        snapshot = shared_lake.snapshot(cursor)
    monkeypatch.setattr("ml_platform.features.too_late.MOST_BYTES", len(ROWS) - 1)
    assert find_too_late_landed(settings, late) == ()
    with shared_lake.cursor() as cursor:
        assert shared_lake.snapshot(cursor) == snapshot


def test_where_nothing_has_landed_no_lake_is_made(tmp_path: Path, shared_lake: Lake) -> None:
    late = rides(shared_lake, tmp_path, "unlanded", "seats", "known_at: reported_at")
    assert find_too_late_landed(Settings(data=tmp_path / "other"), late) == ()
    assert not (tmp_path / "other").exists()
