"""Leaks in labels, and corrections that arrive late, planted in trips whose outcomes come later."""

import os
from collections.abc import Iterator
from datetime import datetime
from itertools import takewhile
from pathlib import Path

import pytest

from ml_platform.features import compute_features
from ml_platform.features.planting import LateCorrections, Plant, corrections, plant
from ml_platform.features.planting.copies import Copy, copy_newest
from ml_platform.features.planting.corrected import correct
from ml_platform.features.planting.label_plants import half
from ml_platform.settings import Settings
from ml_platform.sources import ingest, source_table
from ml_platform.sources.tables import versions_table
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake
from tests import moody_trips as moods

COMMIT = Commit("test", "0")
DAYS = 6
ARRIVAL = 4
"""Number of the day on which corrections arrive, two thirds into the days that are planted in."""


def midnight(number: int) -> datetime:
    return datetime(*moods.day(number).timetuple()[:3], tzinfo=moods.ZONE)


def days(first: int, last: int) -> Window:
    return Window(midnight(first), midnight(last + 1))


def ingested(lake: Lake, use_case: UseCase) -> None:
    for source in use_case.sources:
        # Some of the last trips arrive two days later.
        ingest(lake, use_case, source, days(0, DAYS + 1), COMMIT)


@pytest.fixture(scope="module")
def use_case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return moods.write_folder(tmp_path_factory.mktemp("planted") / "use_cases", "[schedule]")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, use_case: UseCase) -> Iterator[Lake]:
    settings = Settings(data=tmp_path_factory.mktemp("planted"))
    rows = moods.trips(DAYS, ())
    for number in range(DAYS + 2):
        moods.land(settings, rows, number)
    lake = Lake(settings)
    ingested(lake, use_case)
    yield lake
    lake.close()


@pytest.fixture
def copied(lake: Lake, use_case: UseCase, tmp_path: Path) -> Iterator[Copy]:
    aside = Lake(Settings(data=tmp_path / "aside"))
    copied = copy_newest(lake, aside, use_case)
    compute_features(aside, use_case, "pace", copied.range, COMMIT)
    yield copied
    aside.close()


@pytest.mark.slow
def test_a_leak_of_each_kind_is_found_in_labels(
    lake: Lake, use_case: UseCase, tmp_path: Path
) -> None:
    aside = Lake(Settings(data=tmp_path / "aside"))
    bare = use_case.model_copy(update={"features": {}})

    found = {(each.view, each.kind): each for each in plant(lake, aside, bare)}

    aside.close()
    outcomes = {kind: each.outcome for (view, kind), each in found.items() if view == "labels"}
    assert outcomes == {
        "nothing": "clean",
        "known at its event time": "found",
        "known at its event time, in one of a hundred": "found",
        "known a second too early": "found",
        "known after half of its delay": "found",
        "the last label of all": "found",
        "no horizon": "found",
        "half of the horizon": "found",
        "late corrections, values as known": "clean",
        "late corrections, values as revised": "moved",
    }
    every = DAYS * moods.A_DAY
    assert found["labels", "known a second too early"].rows == every
    assert every > found["labels", "no horizon"].rows > found["labels", "half of the horizon"].rows
    # Without features the training set is request columns and labels.
    assert found["training set", "late corrections, values as known"].outcome == "clean"


@pytest.mark.exhaustive
@pytest.mark.slow
def test_a_known_at_that_is_later_than_it_has_to_be_leaves_room(
    lake: Lake, use_case: UseCase, tmp_path: Path
) -> None:
    late = use_case.label.query.replace("known_at", "known_at + INTERVAL 3 DAYS AS known_at")
    label = use_case.label.model_copy(update={"query": late})
    roomy = use_case.model_copy(update={"features": {}, "label": label})
    aside = Lake(Settings(data=tmp_path / "aside"))

    plants = plant(lake, aside, roomy)
    leaks = takewhile(lambda each: not isinstance(each, LateCorrections), plants)
    outcomes = {each.kind: each.outcome for each in leaks}

    aside.close()
    assert outcomes["nothing"] == "clean"
    assert outcomes["known at its event time"] == "found"
    assert outcomes["known a second too early"] == "changes nothing"
    # Half of more than three days is later than the latest arrival, a day and a half after it.
    assert outcomes["known after half of its delay"] == "changes nothing"


@pytest.mark.exhaustive
@pytest.mark.slow
def test_rows_that_are_known_late_leak_in_more_ways(tmp_path: Path) -> None:
    folder = moods.write_folder(tmp_path / "use_cases", "[schedule]").folder
    spec = (folder / "use_case.yaml").read_text()
    known_late = 'event_time: arrived_at\n    known_at: "arrived_at + interval 5 hours"\n'
    (folder / "use_case.yaml").write_text(spec.replace("event_time: arrived_at\n", known_late))
    (folder / "features" / "pace.sql").write_text(
        "SELECT trip, known_at AS event_time, delay FROM arrivals"
    )
    settings = Settings(data=tmp_path)
    rows = moods.trips(DAYS, ())
    for number in range(DAYS + 2):
        moods.land(settings, rows, number)
    lake, aside = Lake(settings), Lake(Settings(data=tmp_path / "aside"))
    late = load_use_case(folder)
    ingested(lake, late)

    of_the_view = takewhile(lambda each: each.view == "pace", plant(lake, aside, late))
    outcomes = {each.kind: each.outcome for each in of_the_view}

    lake.close()
    aside.close()
    assert outcomes["nothing"] == "clean"
    assert outcomes["rows that happened and are not known yet"] == "found"
    assert outcomes["late rows, further back than the lookback"] == "found"


@pytest.mark.slow
def test_what_was_known_stays_when_rows_are_corrected_late(copied: Copy) -> None:
    found = list(corrections.plant_corrections(copied))

    said = [(each.view, each.kind.split()[-1], each.outcome) for each in found]
    assert said == [
        (view, values, outcome)
        for view in ("pace", "labels", "training set")
        for values, outcome in (("known", "clean"), ("revised", "moved"))
    ]
    rows = {each.view: each.rows for each in found}
    # Distances of about a seventh of the trips of three days, of which each has its own row.
    assert rows["pace"] > 3 * moods.A_DAY / 14
    assert rows["labels"] > 0
    # Not all of their labels are known by then.
    assert 0 < rows["training set"] < rows["pace"]
    # The older half of the days is corrected, which arrives after two thirds of them.
    with copied.lake.cursor(copied.use_case.timezone) as cursor:
        (row,) = cursor.execute(
            f"""SELECT max(started_at) < {_moment(DAYS // 2)},
                array_agg(DISTINCT _known_until) FILTER (_known_until IS NOT NULL)
                    = [{_moment(ARRIVAL)}],
                count(*) = 2 * count(DISTINCT trip)
            FROM {versions_table(copied.use_case, "trips").sql}"""
        ).fetchall()
    assert row == (True, True, True)


@pytest.mark.slow
def test_versions_that_are_not_kept_are_noticed(
    copied: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgetful(lake: Lake, use_case: UseCase, *rest: object) -> object:
        revised = use_case.model_copy(update={"values": "as_revised"})
        return compute_features(lake, revised, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(corrections, "compute_features", forgetful)
    found = {(each.view, each.is_revised): each for each in corrections.plant_corrections(copied)}
    assert found["pace", False].outcome == "moved"
    assert found["pace", False].moved == found["pace", True].moved > 0
    assert found["labels", False].outcome == "clean"
    assert found["training set", False].outcome == "moved"


def _moment(number: int) -> str:
    return f"TIMESTAMPTZ '{midnight(number).isoformat()}'"


@pytest.mark.slow
def test_corrected_rows_are_stored_as_ingesting_them_would_have(
    lake: Lake, use_case: UseCase, copied: Copy, tmp_path: Path
) -> None:
    for source in use_case.sources:
        correct(copied, source, days(0, 2), midnight(ARRIVAL))
    settings = Settings(data=tmp_path / "landed")
    landing = Path(settings.landing_uri) / "moods"
    rows = moods.trips(DAYS, ())
    for number in range(DAYS + 2):
        moods.land(settings, rows, number)
    for file in landing.glob("*/*.csv"):
        os.utime(file, (midnight(0).timestamp(),) * 2)
    other = Lake(settings)
    ingested(other, use_case)
    with copied.lake.cursor() as cursor:
        for source in use_case.sources:
            names = ", ".join(use_case.sources[source].columns)
            file = landing / source / "corrected.csv"
            cursor.execute(
                f"""COPY (SELECT {names} FROM {versions_table(use_case, source).sql}
                WHERE _known_until IS NULL) TO '{file}'"""
            )
            os.utime(file, (midnight(ARRIVAL).timestamp(),) * 2)
    ingested(other, use_case)
    for source in use_case.sources:
        for table in (source_table(use_case, source), versions_table(use_case, source)):
            names = ", ".join(c for c in table.columns if c not in {"_file", "_row"})
            stored = []
            for each in (copied.lake, other):
                with each.cursor() as cursor:
                    query = f"SELECT {names} FROM {table.sql} ORDER BY ALL"
                    stored.append(cursor.execute(query).fetchall())
            assert stored[0] == stored[1] != []
    other.close()


def test_a_single_window_is_not_corrected(copied: Copy) -> None:
    one = Copy(copied.lake, copied.use_case, copied.windows[:1], copied.sources, True)
    assert list(corrections.plant_corrections(one)) == []


@pytest.mark.slow
def test_without_labels_only_features_are_compared(copied: Copy) -> None:
    without = Copy(copied.lake, copied.use_case, copied.windows, copied.sources, has_labels=False)
    assert {each.view for each in corrections.plant_corrections(without)} == {"pace"}


def test_the_outcome_of_late_corrections_says_what_moved() -> None:
    def outcome(rows: int, problem: str | None, moved: int, stale: int) -> str:
        return LateCorrections("v", "late", rows, problem, moved=moved, stale=stale).outcome

    assert outcome(5, None, 0, 0) == "clean"
    assert outcome(0, None, 0, 0) == "changes nothing"
    assert outcome(5, "a leak", 0, 0) == "false alarm"
    assert outcome(5, "a leak", 0, 1) == "not corrected"
    assert outcome(5, "a leak", 1, 1) == "moved"
    assert Plant("v", "nothing", 0, "a leak").outcome == "false alarm"
    assert Plant("v", "nothing", 0, None, is_empty=True).outcome == "no rows"


@pytest.mark.parametrize(
    ("horizon", "halved"), [("2d", "1d"), ("1d", "720m"), ("90m", "45m"), ("0d", "0d")]
)
def test_half_of_a_horizon(horizon: str, halved: str) -> None:
    assert str(half(Duration.parse(horizon))) == halved
