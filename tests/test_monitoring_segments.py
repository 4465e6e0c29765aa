"""A segment that dies among many is named; the report of all rows hardly moves."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ml_platform.alerts import find_conditions
from ml_platform.monitoring import DriftRun, report_drift
from ml_platform.monitoring.drift import WindowDrift
from ml_platform.monitoring.segments import SegmentReport, segments_table
from ml_platform.spec.duration import Duration
from ml_platform.spec.logged import logged_columns
from ml_platform.spec.use_case import REQUESTS, UseCase
from ml_platform.spec.watching import Bounds, Drift, Monitoring, Segments
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table, replace_windows
from ml_platform_dagster.assets.reports import drift_verdict
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

CITIES = [f"City {number:02d}" for number in range(21)]
DEAD = "City 07"


@dataclass(frozen=True)
class Case:
    use_case: UseCase
    lake: Lake
    registry: KeptModels

    def report(self, first: int, last: int, segments: Segments | None = None) -> DriftRun:
        case = self.use_case
        if segments is not None:
            monitoring = case.monitoring.model_copy(update={"segments": segments})
            case = case.model_copy(update={"monitoring": monitoring})
        window = Window(at(first), at(last) + timedelta(days=1))
        return report_drift(self.lake, self.registry, case, window, COMMIT)  # type: ignore[arg-type]

    def of(self, day: int, segments: Segments | None = None) -> WindowDrift:
        (found,) = self.report(day, day, segments).windows.values()
        return found


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Case]:
    """Trips of 21 cities; of one, distances and delays are all zero from the 27th on."""
    root: Path = tmp_path_factory.mktemp("segments")
    monitoring = Monitoring(
        window=Duration(3, "d"),
        drift=Drift(min_rows=60, share=0.5, threshold=0.5),
        segments=Segments(columns=("city",), min_rows=60),
        reference_rows=5_000,
    )
    use_case = write_folder(root, "binary").model_copy(update={"monitoring": monitoring})
    lake, registry = Lake(settings(root)), KeptModels()
    rows = trips(11, 30, a_day=630)
    rows["city"] = np.array(CITIES, dtype=object)[np.arange(len(rows)) % len(CITIES)]
    dead = (rows["city"] == DEAD) & (rows["started_at"] >= at(27))
    rows.loc[dead, ["distance", "delay"]] = 0.0
    gone = (rows["city"] == "City 12") & (rows["started_at"] >= at(26))
    rows = pd.DataFrame(rows[~gone])
    land(lake, use_case, rows, days(11, 30))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 21)), at(22))
    yield Case(use_case, lake, registry)
    lake.close()


def segment(found: WindowDrift, name: str) -> SegmentReport:
    return next(report for report in found.segments if report.segment == name)


def test_the_segment_that_dies_is_named_and_no_other_fails(case: Case) -> None:
    before, after = case.of(24), case.of(30)
    assert before.failing_segments == ()
    assert len(before.segments) == 21
    assert not after.failed
    assert [report.name for report in after.failing_segments] == [
        "city=City 07", "city=City 12",
    ]  # fmt: skip
    assert {"distance", "label"} <= set(segment(after, DEAD).drifted)
    assert segment(after, "City 12").status == "gone"
    verdict = drift_verdict(after, None)
    assert not verdict.passed
    assert "city=City 07: distance, " in verdict.description
    assert "city=City 12: no rows any more" in verdict.description


@pytest.mark.slow
def test_alerts_name_the_segment_until_it_is_well(case: Case) -> None:
    def titles() -> list[str]:
        found = find_conditions(case.lake, case.use_case, at(30))
        return [c.title for c in found.conditions if c.kind == "drift"]

    case.report(22, 30)
    assert titles() == [
        "Segment city=City 07 of trips fails",
        "Segment city=City 12 of trips fails",
    ]
    found = find_conditions(case.lake, case.use_case, at(30))
    assert found.judged["drift/city=City 03"] == at(30)


@pytest.mark.slow
def test_a_range_equals_its_windows(case: Case) -> None:
    def stored() -> pd.DataFrame:
        with case.lake.cursor() as cursor:
            return cursor.execute(
                "SELECT * EXCLUDE (snapshot, _snapshot) "
                f"FROM {segments_table(case.use_case).sql} ORDER BY ALL"
            ).fetch_df()

    case.report(22, 30)
    of_a_range = stored()
    assert len(of_a_range) == 9 * 21
    with case.lake.cursor() as cursor:
        cursor.execute(f"DELETE FROM {segments_table(case.use_case).sql}")
        cursor.execute("DELETE FROM lake.trips.drift_report")
    for day in range(22, 31):
        case.report(day, day)
    pd.testing.assert_frame_equal(stored(), of_a_range)


def test_small_segments_are_not_judged(case: Case) -> None:
    found = case.of(30, Segments(columns=("city",), min_rows=1_000))
    assert {report.status for report in found.segments} == {"too few rows in the reference"}
    assert {report.failed for report in found.segments} == {None}


def test_the_metric_of_a_segment_is_measured_and_bounded(tmp_path: Path) -> None:
    monitoring = Monitoring(
        window=Duration(5, "d"),
        segments=Segments(columns=("city",), min_rows=20, performance=Bounds(min=0.6)),
        drift=Drift(share=1.0, min_rows=20),
    )
    use_case = write_folder(tmp_path, "binary").model_copy(update={"monitoring": monitoring})
    lake, registry = Lake(settings(tmp_path)), KeptModels()
    rows = trips(11, 30, a_day=120)
    # From the 27th on, the nearer a trip in Boston, the later it is.
    turned = (rows["city"] == "Boston") & (rows["started_at"] >= at(24))
    rows.loc[turned, "delay"] = 30 - rows["distance"]
    land(lake, use_case, rows, days(11, 30))
    promote(lake, use_case, registry.train(lake, use_case, days(11, 21)), at(22))
    from ml_platform.scoring import score

    score(lake, registry, use_case, days(22, 30), COMMIT)  # type: ignore[arg-type]
    found = Case(use_case, lake, registry).of(30)
    assert_boston_alone_fails(found)
    answer(lake, use_case, days(25, 30))
    (live,) = report_drift(
        lake,
        registry,
        use_case,
        days(30, 30),
        COMMIT,
        live=True,  # type: ignore[arg-type]
    ).windows.values()
    assert_boston_alone_fails(live)
    # What was predicted by batch and on request are the same rows.
    assert [(r.segment, r.value, r.labelled) for r in live.segments] == [
        (r.segment, r.value, r.labelled) for r in found.segments
    ]
    with lake.cursor() as cursor:
        table = segments_table(use_case, live=True).sql
        assert cursor.execute(f"SELECT count(*) FROM {table}").fetchall() == [(4,)]
    lake.close()


def answer(lake: Lake, use_case: UseCase, window_range: Window) -> None:
    """Store what batches predicted as if it had been answered on request."""
    columns = logged_columns(use_case)
    given = {
        "prediction_id": "CAST(p.trip AS VARCHAR)",
        "mode": "'live'",
        "event_time": "p.event_time",
        "trip": "p.trip",
        "city": "t.city",
        "distance": "t.distance",
        "pace__pace": "t.distance / 60",
        **{name: f"p.{name}" for name in use_case.prediction_columns},
    }
    selected = ", ".join(
        f"CAST({given.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in columns.items()
    )
    query = (
        f"SELECT {selected} FROM lake.trips.predictions p JOIN lake.trips.trips t USING (trip) "
        f"WHERE p.event_time >= TIMESTAMPTZ '{window_range.start}'"
    )
    with lake.cursor(use_case.timezone) as cursor:
        replace_windows(
            lake, cursor, Table(use_case.name, REQUESTS, columns, ("event_time",)), query,
            time="event_time", calendar=use_case.calendar, window_range=window_range, commit=COMMIT,
        )  # fmt: skip


def assert_boston_alone_fails(found: WindowDrift) -> None:
    values = {report.segment: report.value for report in found.segments}
    assert values["Boston"] is not None
    assert values["Chicago"] is not None
    assert values["Boston"] < 0.5
    assert values["Chicago"] > 0.6
    assert segment(found, "Boston").failed
    assert not segment(found, "Chicago").failed
