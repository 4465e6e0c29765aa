"""Impact against brute force: what differs in a lake that never had the rows has to be named."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as h_settings
from hypothesis import strategies as st

from ml_platform.errors import ModelNotFound, SubjectNotFound
from ml_platform.features import compute_features
from ml_platform.impact import DataImpact, data_impact, landed_file, source_row, version_impact
from ml_platform.impact.partitions import readers
from ml_platform.registry import Promotion, record
from ml_platform.scoring import score
from ml_platform.sources import ingest
from ml_platform.spec.duration import Duration
from ml_platform.spec.tables import Reads
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Calendar, Window, utc
from tests.calendars import around_skipped, calendars, durations, moments_after
from tests.examples import at_most
from tests.impact_rides import COMMIT, TABLES, World, at, key, rides, write_folder

pytestmark = pytest.mark.slow

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


def keys_of(windows: Any) -> set[str]:
    return {f"{window.start:%Y-%m-%d}" for window in windows}


def named(impact: DataImpact) -> dict[str, set[str]]:
    """All partitions that an impact names as ones that may be other without the rows."""
    found = {table: keys_of(each.read) for table, each in impact.tables.items()}
    for table, windows in impact.by_versions.items():
        found[table] = found.get(table, set()) | keys_of(windows)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return write_folder(tmp_path_factory.mktemp("declared"))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, folder: UseCase) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("whole"), folder, *rides()).whole()
    yield made
    made.lake.close()


def arrivals_of(day: int, number: int) -> str:
    _, arrived = rides()
    return str(arrived[arrived["arrived"].dt.day == day]["ride"].iloc[number])


@given(st.data(), st.one_of(calendars, around_skipped), durations)
@h_settings(deadline=None, max_examples=at_most(60))
def test_no_window_beyond_the_readers_of_a_range_reads_of_it(
    data: st.DataObject, calendar: Calendar, duration: Duration
) -> None:
    zone = calendar.timezone
    ranges = {
        "looking back": lambda w: Window(duration.before(w.start, zone), w.end),
        "ahead": lambda w: Window(w.start, duration.after(w.end, zone)),
        "trailing": lambda w: Window(duration.before(w.end, zone), w.end),
    }
    seen = ranges[data.draw(st.sampled_from(sorted(ranges)))]
    if duration.count == 0:
        return
    begin = data.draw(moments_after(calendar, 60))
    touched = Window(begin, begin + data.draw(st.timedeltas(timedelta(microseconds=1), 9 * DAY)))

    def reads(window: Window) -> bool:
        read = seen(window)
        return utc(read.start) < utc(touched.end) and utc(read.end) > utc(touched.start)

    found = readers(calendar, Reads("rides", seen), touched)
    before, after = found.start, found.end
    for _ in range(60):
        earlier, later = (
            calendar.window_at(utc(before) - timedelta(seconds=1)),
            calendar.window_at(after),
        )
        assert not reads(earlier)
        assert not reads(later)
        before, after = earlier.start, later.end
    edges = (calendar.window_at(found.start), calendar.window_at(utc(found.end) - SECOND))
    for edge in edges:
        assert reads(edge) or (utc(edge.start) < utc(touched.end) and utc(edge.end) > utc(begin))


SUBJECTS = {
    "an arrival before the first version": ("arrivals", arrivals_of(2, 3)),
    "an arrival between the versions": ("arrivals", arrivals_of(5, 2)),
    "the last arrival of a day": ("arrivals", arrivals_of(6, -1)),
    "an arrival after the last version": ("arrivals", arrivals_of(8, 1)),
    "an example": ("rides", "r75"),
    "a file of arrivals": ("arrivals", "arrivals/2024-03-05.csv"),
    "a file of examples": ("rides", "rides/2024-03-06.csv"),
}


@pytest.mark.parametrize("case", SUBJECTS)
def test_what_is_different_without_rows_is_named(
    world: World, tmp_path: Path, folder: UseCase, case: str
) -> None:
    source, name = SUBJECTS[case]
    asked, arrived = rides()
    rows, time = (asked, "began") if source == "rides" else (arrived, "arrived")
    if "/" in name:
        subject = landed_file(world.lake, folder, name)
        gone = rows[time].dt.strftime("%Y-%m-%d") == name[-14:-4]
    else:
        subject = source_row(world.lake, folder, source, {"ride": name})
        gone = rows["ride"] == name
    assert subject.rows == gone.sum()
    impact = data_impact(world.lake, world.registry, folder, subject)
    left = rows[~gone]
    given = (left, arrived) if source == "rides" else (asked, left)
    without = World(tmp_path, folder, *given).whole()
    different = world.different_from(without.content())
    assert any(different.values())
    found = named(impact)
    for table in TABLES:
        assert different[table] <= found.get(table, set()), table
    others = {
        version
        for version, model in world.registry.versions.items()
        if not model.reference.equals(without.registry.versions[version].reference)
    }
    assert others <= {each.version for each in impact.trained}
    _are_the_dependents(world, without, impact)
    without.lake.close()


def _are_the_dependents(world: World, without: World, impact: DataImpact) -> None:
    """What is named row by row is what differs row by row, predictions of other versions aside."""
    ours, theirs = world.content(), without.content()
    assert impact.dependents is not None
    for table in ("city_features", "share_features", "labels"):
        counted = {}
        for start in ours[table].keys() | theirs[table].keys():
            mine, other = set(ours[table].get(start, [])), set(theirs[table].get(start, []))
            # Name of the table, then window, entity and event time.
            apart = {row[1:4] for row in mine ^ other}
            if apart:
                counted[f"{start:%Y-%m-%d}"] = len(apart)
        rows = impact.dependents.get(table, {})
        assert {f"{w.start:%Y-%m-%d}": n for w, n in rows.items()} == counted, table
    predicted = impact.dependents.get("predictions", {})
    by_others = keys_of(impact.by_versions.get("predictions", ()))
    counted = {}
    for start, mine in ours["predictions"].items():
        apart = len({*mine} - {*theirs["predictions"].get(start, [])})
        if apart and f"{start:%Y-%m-%d}" not in by_others:
            counted[f"{start:%Y-%m-%d}"] = apart
    found = {f"{w.start:%Y-%m-%d}": n for w, n in predicted.items()}
    assert {at: n for at, n in found.items() if at not in by_others} == counted


def test_what_is_different_without_a_correction_is_named(
    world: World, tmp_path: Path, folder: UseCase
) -> None:
    asked, arrived = rides()
    corrected = World(tmp_path, folder, asked, arrived)
    of_a_day = arrived["arrived"].dt.day == 5
    wrong = arrived[of_a_day & (arrived["delay"] < 10)]
    corrected.land("arrivals/new.csv", at(6, 4), wrong.assign(delay=wrong["delay"] + 40))
    corrected.whole()
    subject = landed_file(corrected.lake, folder, "arrivals/new.csv")
    assert subject.is_correction
    assert subject.rows == len(wrong) > 3
    impact = data_impact(corrected.lake, corrected.registry, folder, subject)
    different = corrected.different_from(world.content())
    found = named(impact)
    for table in TABLES:
        assert different[table] <= found.get(table, set()), table
    # It was known in the morning of the 6th: the version of the 7th was trained on it.
    assert [each.version for each in impact.trained] == [2]
    assert different["predictions"] >= {key(6), key(7)}
    assert key(5) not in found["predictions"]
    corrected.lake.close()


def test_what_a_correction_changed_is_what_holds_other_rows(
    tmp_path: Path, folder: UseCase
) -> None:
    asked, arrived = rides()
    world = World(tmp_path, folder, asked, arrived).whole()
    before = world.content()
    on_time = arrived[(arrived["arrived"].dt.day == 5) & (arrived["delay"] < 10)]
    wrong = on_time.tail(1)
    (ride,) = wrong["ride"]
    corrected = at(6, 15)
    world.land("arrivals/corrected.csv", corrected, wrong.assign(delay=wrong["delay"] + 40))
    world.ingest()
    world.compute()
    world.report()
    different = world.different_from(before)
    assert different["labels"]
    assert different["performance_report"]
    assert different["city_features"] | different["share_features"] == {key(5), key(6)}
    # What was predicted before the correction was known stays.
    assert different["predictions"] == set()
    for subject in (
        landed_file(world.lake, folder, "arrivals/corrected.csv"),
        source_row(world.lake, folder, "arrivals", {"ride": ride}, as_of=at(30)),
    ):
        assert subject.known_from == corrected
        impact = data_impact(world.lake, world.registry, folder, subject)
        assert impact.trained == ()
        assert impact.by_versions == {}
        for table in TABLES:
            each = impact.tables.get(table)
            assert (keys_of(each.changed) if each else set()) == different[table], table
        assert impact.dependents is not None
        assert keys_of(impact.dependents["city_features"]) == different["city_features"]
    row = source_row(world.lake, folder, "arrivals", {"ride": ride})
    assert [(v.file, v.known_from, v.known_until) for v in row.versions] == [
        (f"arrivals/{key(5)}.csv", wrong["arrived"].iloc[0], corrected),
        ("arrivals/corrected.csv", corrected, None),
    ]
    assert {
        each.version for each in data_impact(world.lake, world.registry, folder, row).trained
    } == {2}
    world.lake.close()


def test_partitions_computed_before_rows_landed_have_not_read_them(
    tmp_path: Path, folder: UseCase
) -> None:
    asked, arrived = rides()
    late = arrived["ride"] == arrivals_of(5, 2)
    world = World(tmp_path, folder, asked, arrived[~late]).whole()
    world.land("arrivals/late.csv", at(9), arrived[late])
    with pytest.raises(SubjectNotFound, match="no landed file 'arrivals/late"):
        landed_file(world.lake, folder, "arrivals/late.csv")
    world.ingest()
    subject = landed_file(world.lake, folder, "arrivals/late.csv")
    impact = data_impact(world.lake, world.registry, folder, subject)
    assert named(impact) == {table: set() for table in impact.tables}
    assert keys_of(impact.tables["city_features"].before) == {key(5), key(6)}
    assert impact.trained == ()
    only = Window(at(5), at(6))
    compute_features(world.lake, folder, "city", only, COMMIT)
    impact = data_impact(world.lake, world.registry, folder, subject)
    assert keys_of(impact.tables["city_features"].read) == {key(5)}
    assert keys_of(impact.tables["city_features"].changed) == {key(5)}
    assert named(impact)["predictions"] == set()
    score(world.lake, world.registry, folder, only, COMMIT)
    impact = data_impact(world.lake, world.registry, folder, subject)
    assert keys_of(impact.tables["predictions"].read) == {key(5)}
    assert keys_of(impact.tables["share_features"].before) == {key(5), key(6)}
    world.lake.close()


def test_a_partition_has_read_what_was_there_of_a_file(tmp_path: Path, folder: UseCase) -> None:
    asked, arrived = rides()
    of_two_days = arrived["arrived"].dt.day.isin((5, 6))
    world = World(tmp_path, folder, asked.head(1), arrived.head(1))
    world.land("arrivals/both.csv", at(7), arrived[of_two_days])
    ingest(world.lake, folder, "arrivals", Window(at(6), at(7)), COMMIT)
    compute_features(world.lake, folder, "city", Window(at(6), at(7)), COMMIT)
    subject = landed_file(world.lake, folder, "arrivals/both.csv")
    assert keys_of(subject.waiting) == {key(5)}
    ingest(world.lake, folder, "arrivals", Window(at(5), at(6)), COMMIT)
    subject = landed_file(world.lake, folder, "arrivals/both.csv")
    assert subject.waiting == ()
    impact = data_impact(world.lake, world.registry, folder, subject, recompute=False)
    assert keys_of(impact.tables["city_features"].read) == {key(6)}
    assert impact.tables["city_features"].before == ()
    assert impact.dependents is None
    world.lake.close()


def test_a_version_touched_what_it_served_wrote_and_was_compared_with(
    world: World, folder: UseCase
) -> None:
    found = version_impact(world.lake, world.registry, folder, 1)
    assert found.served == ((at(4), at(7)),)
    assert [each.version for each in found.decisions] == [1]
    assert {table: keys_of(rows) for table, rows in found.tables.items()} == {
        table: {key(4), key(5), key(6)}
        for table in ("predictions", "drift_report", "performance_report")
    }
    assert sum(found.tables["predictions"].values()) == 3 * 14
    against = Promotion(3, at(8), at(20), "gate", "refused", "", {"champion_version": 2.0})
    back = Promotion(1, at(7), at(21), "ada", "rolled back", "it is worse")
    for decision in (against, back):
        record(world.lake, folder, decision, COMMIT)
    second = version_impact(world.lake, world.registry, folder, 2)
    assert second.served == ()
    assert [each.version for each in second.compared] == [3]
    assert [each.version for each in second.rolled_back] == [1]
    assert keys_of(second.tables["predictions"]) == {key(7), key(8)}
    with pytest.raises(ModelNotFound, match="version 9"):
        version_impact(world.lake, world.registry, folder, 9)


def test_what_is_asked_wrongly_is_said(world: World, folder: UseCase) -> None:
    def said(*given: Any, **named: Any) -> str:
        ask = landed_file if isinstance(given[0], str) and "/" in given[0] else source_row
        with pytest.raises(SubjectNotFound) as error:
            ask(world.lake, folder, *given, **named)
        return str(error.value)

    assert said("arrivals/2024-03-5.csv").endswith("Did you mean 'arrivals/2024-03-05.csv'?")
    assert "no source 'ride'" in said("rides/2024-03-05.csv", "ride")
    assert "no source 'arival'" in said("arival", {"ride": "r1"})
    assert "is named by ride=…" in said("arrivals", {"trip": "r1"})
    assert "there is no row ride=r999 of arrivals" in said("arrivals", {"ride": "r999"})
    with pytest.raises(SubjectNotFound, match="was not known at 2024-02-01"):
        source_row(
            world.lake, folder, "arrivals", {"ride": "r1"}, as_of=datetime(2024, 2, 1, tzinfo=UTC)
        )
