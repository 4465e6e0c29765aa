"""Impact against brute force: what differs in a lake that never had the rows has to be named."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as h_settings
from hypothesis import strategies as st

from ml_platform.errors import ModelNotFound, SubjectNotFound
from ml_platform.features import compute_features, compute_labels
from ml_platform.impact import DataImpact, data_impact, landed_file, source_row, version_impact
from ml_platform.impact.partitions import readers
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import Promotion, record
from ml_platform.scoring import score
from ml_platform.settings import Settings
from ml_platform.sources import ingest
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.tables import Reads
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Calendar, Window, utc
from ml_platform.storage import Commit, Lake
from tests.calendars import around_skipped, calendars, durations, moments_after
from tests.examples import at_most
from tests.kept_models import KeptModels, promote

SPEC = """\
description: Is a ride late?
partitions: {cadence: daily, start: 2024-03-01}
sources:
  rides:
    files: "rides/*.csv"
    event_time: began
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, city: VARCHAR, distance: DOUBLE}
  arrivals:
    files: "arrivals/*.csv"
    event_time: arrived
    key: [ride]
    columns: {ride: VARCHAR, began: TIMESTAMPTZ, arrived: TIMESTAMPTZ, city: VARCHAR, delay: DOUBLE}
features:
  city: {entity: [city], lookback: 1d, ttl: 12h}
  share: {entity: [city], lookback: 6h, ttl: 1d}
examples: {source: rides, entity: [ride], columns: [city, distance]}
label: {task: binary, horizon: 1d}
model: {metric: roc_auc, window: 4d, holdout: 2d}
monitoring:
  window: 2d
  drift: {min_rows: 3}
  performance: {min: 0.5, min_rows: 3}
"""
CITY = """\
SELECT DISTINCT city, arrived AS event_time,
    sum(delay) OVER (PARTITION BY city ORDER BY arrived RANGE INTERVAL 8 HOURS PRECEDING) AS delays
FROM arrivals
"""
# A row of one city changes those of the others.
SHARE = """\
SELECT DISTINCT city, arrived AS event_time,
    sum(delay) OVER (PARTITION BY city ORDER BY arrived RANGE INTERVAL 6 HOURS PRECEDING)
    / sum(delay) OVER (ORDER BY arrived RANGE INTERVAL 6 HOURS PRECEDING) AS share
FROM arrivals
"""
LABELS = "SELECT ride, began AS event_time, delay > 10 AS label, known_at FROM arrivals\n"
TABLES = (
    "city_features", "share_features", "labels", "predictions", "drift_report",
    "performance_report",
)  # fmt: skip
STAMPS = {"_snapshot", "snapshot", "scored_at", "labels_known_by", "published_at"}
COMMIT = Commit("run", "code")
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
DAYS, CUTOFFS = 9, (4, 7)
"""Days that land, and those at whose start a version is trained that serves from then on."""


def at(day: int, hour: float = 0) -> datetime:
    return datetime(2024, 3, day, tzinfo=UTC) + timedelta(hours=hour)


def key(day: int) -> str:
    return f"2024-03-{day:02d}"


def write_folder(root: Path) -> UseCase:
    folder = root / "rides"
    (folder / "features").mkdir(parents=True)
    (folder / "use_case.yaml").write_text(SPEC)
    (folder / "features" / "city.sql").write_text(CITY)
    (folder / "features" / "share.sql").write_text(SHARE)
    (folder / "labels.sql").write_text(LABELS)
    (folder / "model.py").write_text("def build():\n    pass\n")
    return load_use_case(folder)


def rides(seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rides of all days, and their arrivals, some of which are of the day after."""
    rng = np.random.default_rng(seed)
    began = [at(day, hour) for day in range(1, DAYS) for hour in sorted(rng.uniform(0, 24, 14))]
    city = rng.choice(["Rome", "Oslo", "Bonn"], len(began))
    delay = rng.uniform(1, 20, len(began)).round(1)
    asked = pd.DataFrame(
        {
            "ride": [f"r{number}" for number in range(len(began))],
            "began": pd.to_datetime(began).floor("s"),
            "city": city,
            "distance": rng.uniform(1, 30, len(began)).round(1),
        }
    )
    took = pd.to_timedelta(rng.uniform(1, 5, len(began)), unit="h").floor("s")
    arrived = asked[["ride", "began"]].assign(arrived=asked["began"] + took, city=city, delay=delay)
    return asked, arrived


@dataclass(frozen=True)
class ByHistory:
    """A ride is as late as its city is, more so where more of the rides learnt from were."""

    late: float

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        inputs = rows[["distance", "city__delays", "share__share"]].astype(float).fillna(-1.0)
        found = 1 / (1 + np.exp(-(inputs @ [0.02, 0.03, 0.5]).to_numpy() - self.late))
        return np.column_stack((1 - found, found))


class World:
    """A lake into which files land a day, and everything that is computed from them."""

    def __init__(self, root: Path, use_case: UseCase, asked: pd.DataFrame, arrived: pd.DataFrame):
        self.use_case = use_case
        self.lake = Lake(Settings(data=root))
        self.registry = KeptModels()
        for source, time, rows in (("rides", "began", asked), ("arrivals", "arrived", arrived)):
            for day in range(1, DAYS + 1):
                inside = (rows[time] >= at(day)) & (rows[time] < at(day + 1))
                if inside.any():
                    self.land(f"{source}/{key(day)}.csv", at(day + 1), rows[inside])

    def land(self, name: str, landed: datetime, rows: pd.DataFrame) -> None:
        file = Path(self.lake.settings.landing_uri) / "rides" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        rows.to_csv(file, index=False)
        os.utime(file, (landed.timestamp(),) * 2)

    @property
    def all_days(self) -> Window:
        return Window(at(1), at(DAYS + 1))

    def ingest(self) -> None:
        for source in self.use_case.sources:
            ingest(self.lake, self.use_case, source, self.all_days, COMMIT)

    def compute(self) -> None:
        for view in self.use_case.features:
            compute_features(self.lake, self.use_case, view, self.all_days, COMMIT)
        compute_labels(self.lake, self.use_case, self.all_days, COMMIT)

    def train(self) -> None:
        for cutoff in CUTOFFS:
            learnt = Window(at(cutoff - 3), at(cutoff))
            version = self.registry.train(self.lake, self.use_case, learnt)
            model = self.registry.versions[version]
            late = float(model.reference["label"].astype(float).mean())
            self.registry.versions[version] = replace(model, estimator=ByHistory(late))
            promote(self.lake, self.use_case, version, at(cutoff))

    def report(self) -> None:
        served = Window(at(CUTOFFS[0]), at(DAYS + 1))
        score(self.lake, self.registry, self.use_case, served, COMMIT)
        report_drift(self.lake, self.registry, self.use_case, served, COMMIT)
        now = at(DAYS + 20)
        report_performance(self.lake, self.use_case, served, COMMIT, now=now)

    def whole(self) -> "World":
        self.ingest()
        self.compute()
        self.train()
        self.report()
        return self

    def content(self) -> dict[str, dict[datetime, list[Any]]]:
        """Rows by table and window, versions included, without what only says when."""
        found: dict[str, dict[datetime, list[Any]]] = {table: {} for table in TABLES}
        with self.lake.cursor() as cursor:
            stored = self.lake.tables(cursor, "rides")
            for table in TABLES:
                for name in {table, f"{table}_versions"} & stored:
                    frame = cursor.execute(f"FROM lake.rides.{name}").fetch_df()
                    frame = frame.drop(columns=[c for c in frame if c in STAMPS])
                    for start, rows in frame.groupby("window_start"):
                        plain = [(name, *map(_plain, row)) for row in rows.to_numpy()]
                        moment = start.to_pydatetime()
                        found[table][moment] = sorted(
                            [*found[table].get(moment, []), *plain], key=repr
                        )
        return found

    def different_from(self, other: Mapping[str, Mapping[datetime, Any]]) -> dict[str, set[str]]:
        """Partitions, by table, that hold other rows."""
        ours = self.content()
        return {
            table: {
                f"{start:%Y-%m-%d}"
                for start in ours[table].keys() | other[table].keys()
                if ours[table].get(start) != other[table].get(start)
            }
            for table in TABLES
        }


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else float(f"{value:.9g}")
    if isinstance(value, np.ndarray | list):
        return tuple(map(_plain, value))
    return None if value is pd.NaT or value is pd.NA else value


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
    for _ in range(30):
        earlier, later = (
            calendar.window_at(before - timedelta(seconds=1)),
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


@pytest.mark.slow
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
    if not impact.trained:
        predicted = impact.dependents.get("predictions", {})
        counted = {}
        for start, mine in ours["predictions"].items():
            apart = len({*mine} - {*theirs["predictions"].get(start, [])})
            if apart:
                counted[f"{start:%Y-%m-%d}"] = apart
        assert {f"{w.start:%Y-%m-%d}": n for w, n in predicted.items()} == counted


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_version_touched_what_it_served_wrote_and_was_compared_with(
    tmp_path: Path, folder: UseCase
) -> None:
    world = World(tmp_path, folder, *rides()).whole()
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
    world.lake.close()


@pytest.mark.slow
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
