"""What a rollback recomputes: all that the replaced version wrote, and nothing else."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from threading import Barrier

import pandas as pd
import pytest

from ml_platform.errors import ModelNotFound, RollbackRefused
from ml_platform.monitoring import report_drift, report_performance
from ml_platform.registry import champion_at, history
from ml_platform.rollback import Affected, RollbackPlan, plan_rollback, recompute, roll_back
from ml_platform.scoring import score
from ml_platform.spec.duration import Duration
from ml_platform.spec.inputs import Partitions
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake
from tests.kept_models import ByDistance, KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

pytestmark = pytest.mark.slow

COMMITS = dict.fromkeys(("predictions", "drift_report", "performance_report"), COMMIT)
STAMPS = ["snapshot", "scored_at", "labels_known_by"]


class Backwards(ByDistance):
    def predict_proba(self, rows: pd.DataFrame):
        return super().predict_proba(rows)[:, ::-1]


@dataclass(frozen=True)
class World:
    lake: Lake
    registry: KeptModels
    use_case: UseCase

    def make(self, *window_ranges: Window) -> None:
        for window_range in window_ranges:
            score(self.lake, self.registry, self.use_case, window_range, COMMIT)
        for window_range in window_ranges:
            report_drift(self.lake, self.registry, self.use_case, window_range, COMMIT)
            report_performance(self.lake, self.use_case, window_range, COMMIT, now=at(28))

    def plan(
        self, to: int | None = None, since: int | None = None, serving: int | None = None
    ) -> RollbackPlan:
        return plan_rollback(
            self.lake, self.registry, self.use_case, decided_by="ada", reason="odd",
            to=to, since=since and at(since), serving=serving,
        )  # fmt: skip

    def roll_back(self, plan: RollbackPlan) -> None:
        roll_back(self.lake, self.registry, self.use_case, plan, COMMIT)

    def recompute(self, affected: Affected, progress=lambda step: None) -> None:
        recompute(self.lake, self.registry, self.use_case, affected, COMMITS, progress=progress)

    def rows(self, table: str) -> pd.DataFrame:
        with self.lake.cursor() as cursor:
            found = cursor.execute(
                f"SELECT * EXCLUDE (_snapshot) FROM lake.trips.{table} ORDER BY ALL"
            ).fetch_df()
        return found.drop(columns=STAMPS, errors="ignore")


def build(root: Path, *, second: bool) -> World:
    """March, version 1 from the 9th on and perhaps version 2 from the 14th on."""
    declared = write_folder(root, "binary")
    watched = declared.monitoring.model_copy(update={"window": Duration(3, "d")})
    use_case = declared.model_copy(update={"monitoring": watched})
    world = World(Lake(settings(root)), KeptModels(), use_case)
    land(world.lake, use_case, trips(1, 24), days(1, 24))
    world.registry.train(world.lake, use_case, days(1, 8))
    world.registry.train(world.lake, use_case, days(5, 13))
    world.registry.versions[2] = replace(world.registry.versions[2], estimator=Backwards())
    promote(world.lake, use_case, 1, at(9))
    if second:
        promote(world.lake, use_case, 2, at(14))
    return world


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    world = build(tmp_path, second=True)
    yield world
    world.lake.close()


@pytest.fixture(scope="module")
def without_the_second(tmp_path_factory) -> Iterator[World]:
    """The month as it would be had version 2 never served; nobody predicted the 17th."""
    world = build(tmp_path_factory.mktemp("innocent"), second=False)
    world.make(days(9, 16), days(18, 24))
    yield world
    world.lake.close()


def numbers(windows: tuple[Window, ...]) -> list[int]:
    return [window.start.day for window in windows]


def test_by_default_the_champion_before_serves_again_from_where_the_present_one_began(world):
    plan = world.plan()
    assert (plan.promotion.version, plan.promotion.effective_from) == (1, at(14))
    assert plan.replaced == (2,)
    assert not plan.affected


def test_the_plan_names_exactly_what_the_replaced_version_wrote(world):
    world.make(days(9, 16), days(18, 24))
    affected = world.plan().affected
    assert numbers(affected.predictions) == [14, 15, 16, 18, 19, 20, 21, 22, 23, 24]
    assert numbers(affected.performance_report) == [14, 15, 16, 18, 19, 20, 21, 22, 23, 24]
    assert numbers(affected.drift_report) == [14, 15, 16, 18, 19, 20, 21, 22, 23, 24]


@pytest.mark.exhaustive
def test_afterwards_everything_is_as_if_the_version_had_never_served(world, without_the_second):
    world.make(days(9, 16), days(18, 24))
    plan = world.plan()
    world.roll_back(plan)
    assert world.registry.aliases == {"champion": 1}
    world.recompute(plan.affected)
    assert set(world.rows("predictions")["model_version"]) == {1}
    assert set(world.rows("drift_report")["reference_version"]) == {1}
    for table in ("predictions", "drift_report", "performance_report"):
        pd.testing.assert_frame_equal(world.rows(table), without_the_second.rows(table))


def test_what_is_not_affected_is_not_written_again(world):
    world.make(days(9, 24))
    plan = world.plan(since=20)
    world.roll_back(plan)
    with world.lake.cursor() as cursor:
        before = world.lake.snapshot(cursor)
        world.recompute(plan.affected)
        changed = {
            table: days_written(cursor, world.lake, table, before)
            for table in ("predictions", "drift_report", "performance_report")
        }
    assert changed == {table: numbers(windows) for table, windows in plan.affected.tables}


def days_written(cursor, lake: Lake, table: str, since: int) -> list[int]:
    """Days of which rows were inserted after a snapshot."""
    rows = cursor.execute(
        f"""SELECT DISTINCT day(window_start) FROM ducklake_table_insertions(
        'lake', 'trips', '{table}', {since + 1}, {lake.snapshot(cursor)}) ORDER BY 1"""
    ).fetchall()
    return [day for (day,) in rows]


def test_reports_that_trail_over_wrong_predictions_are_recomputed_and_no_later_ones(world):
    world.make(days(9, 24))
    later = world.plan(since=19)
    world.roll_back(later)
    world.recompute(later.affected)
    affected = world.plan(to=1, since=14).affected
    assert numbers(affected.predictions) == [14, 15, 16, 17, 18]
    assert numbers(affected.performance_report) == [14, 15, 16, 17, 18]
    # Three days that end with the 20th begin with the 18th.
    assert numbers(affected.drift_report) == [14, 15, 16, 17, 18, 19, 20]


def test_predictions_come_before_the_reports_that_read_them(world):
    calendar = world.use_case.calendar
    march = tuple(calendar.windows(days(14, 20)))
    same = Affected(march, march, march)
    assert [(s.tables, s.range) for s in same.steps(world.use_case)[0]] == [
        (("predictions", "drift_report", "performance_report"), days(14, 20))
    ]
    apart = Affected((*march[:2], *march[3:4]), march[:5], march[:2])
    first, later = apart.steps(world.use_case)
    assert [(s.tables, s.range) for s in first] == [
        (("predictions",), days(14, 15)),
        (("predictions",), days(17, 17)),
    ]
    assert [(s.tables, s.range) for s in later] == [
        (("drift_report",), days(14, 18)),
        (("performance_report",), days(14, 15)),
    ]


def test_one_that_was_interrupted_is_finished_by_ordering_it_again(world, without_the_second):
    world.make(days(9, 16), days(18, 24))
    plan = world.plan()
    world.roll_back(plan)

    def interrupt(step):
        if "predictions" in step.tables and step.range.end == at(25):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.recompute(plan.affected, interrupt)
    rest = world.plan(to=1, since=14)
    assert rest.replaced == ()
    assert numbers(rest.affected.predictions) == []
    assert rest.affected.drift_report == plan.affected.drift_report
    world.roll_back(rest)
    world.recompute(rest.affected)
    pd.testing.assert_frame_equal(
        world.rows("drift_report"), without_the_second.rows("drift_report")
    )
    with pytest.raises(RollbackRefused, match=r"serves from .* on already"):
        world.plan(to=1, since=14)


def test_a_second_rollback_goes_back_one_more(world):
    world.registry.train(world.lake, world.use_case, days(5, 18))
    promote(world.lake, world.use_case, 3, at(19))
    first = world.plan()
    assert (first.promotion.version, first.promotion.effective_from) == (2, at(19))
    world.roll_back(first)
    second = world.plan()
    assert (second.promotion.version, second.promotion.effective_from) == (1, at(14))
    world.roll_back(second)
    decisions = history(world.lake, world.use_case)
    assert [champion_at(decisions, at(day)) for day in (9, 14, 19, 24)] == [1, 1, 1, 1]


def test_a_version_cannot_serve_what_it_was_trained_on_and_what_would_do_is_said(world):
    trained = r"before 2024-03-14.*cannot serve from 2024-03-"
    with pytest.raises(RollbackRefused, match=rf"{trained}12.*2024-03-14 on it serves already"):
        world.plan(to=2, since=12)
    world.roll_back(world.plan(since=12))
    with pytest.raises(RollbackRefused, match=rf"{trained}09.*`--from 2024-03-14`"):
        world.plan(to=2)
    assert world.plan(to=2, since=14).replaced == (1,)
    declared = world.use_case.partitions.model_dump()
    over = Partitions.model_validate(declared | {"end": date(2024, 3, 14)})
    ended = replace(world, use_case=world.use_case.model_copy(update={"partitions": over}))
    with pytest.raises(RollbackRefused, match="the history of trips ends before it may"):
        ended.plan(to=2)


def test_only_a_version_that_served_can_be_rolled_back_to(world):
    world.registry.train(world.lake, world.use_case, days(5, 13))
    with pytest.raises(RollbackRefused, match="version 3 of trips never served"):
        world.plan(to=3)
    with pytest.raises(ModelNotFound):
        world.plan(to=99)


def test_where_nobody_served_before_the_version_has_to_be_named(tmp_path):
    world = build(tmp_path, second=False)
    with pytest.raises(RollbackRefused, match="version 1 of trips is the first that serves"):
        world.plan()
    world.lake.close()


def test_of_two_rollbacks_at_once_one_wins(world):
    one, other = world.plan(), world.plan()
    world.roll_back(one)
    with pytest.raises(RollbackRefused, match=r"in the meantime, and version 1 serves now"):
        world.roll_back(other)
    assert len(history(world.lake, world.use_case)) == 3


def test_of_many_who_name_the_version_that_serves_one_rolls_back(world):
    world.registry.train(world.lake, world.use_case, days(5, 18))
    promote(world.lake, world.use_case, 3, at(19))
    others = [replace(world, lake=Lake(world.lake.settings)) for _ in range(4)]
    ready = Barrier(len(others))

    def roll_back_from_3(caller: World) -> str:
        ready.wait()
        try:
            caller.roll_back(caller.plan(serving=3))
        except RollbackRefused as refused:
            return str(refused)
        return "done"

    with ThreadPoolExecutor(len(others)) as threads:
        said = sorted(threads.map(roll_back_from_3, others))
    for each in others:
        each.lake.close()
    assert said[0] == "done"
    assert all("version 2" in refused and "serves now" in refused for refused in said[1:])
    assert [p.version for p in history(world.lake, world.use_case)] == [1, 2, 3, 2]
    with pytest.raises(RollbackRefused, match="version 2 of trips serves now, not version 3"):
        world.plan(serving=3)
    assert world.plan(serving=2).promotion.version == 1
