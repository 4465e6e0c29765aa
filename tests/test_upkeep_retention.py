"""How long rows are kept, and the snapshots that they name, as a use case declares it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.backfill import Standing, judge
from ml_platform.errors import SpecErrors
from ml_platform.scoring import score
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.storage import Lake
from ml_platform.upkeep import keep_up, plan_upkeep
from tests.kept_models import KeptModels, promote
from tests.trips_use_case import COMMIT, at, days, land, settings, trips, write_folder

FEW = "schedules: {horizon: 2d}\nmonitoring: {window: 3d, reference_rows: 200}\n"


def declare(root: Path, retention: str) -> UseCase:
    case = write_folder(root, "binary")
    spec = case.folder / "use_case.yaml"
    kept = spec.read_text().replace("monitoring: {reference_rows: 200}\n", FEW)
    spec.write_text(f"{kept}retention: {retention}\n")
    return load_use_case(case.folder)


@pytest.mark.parametrize(
    ("retention", "problem"),
    [
        ("{trips: {rows: 90d}}", "retention.trips: no table to be kept for a while 'trips'"),
        ("{predictions: {}}", "says nothing; give `rows`, `snapshots` or both a length"),
        ("{predictions: {snapshots: 3h}}", "'3h' is shorter than a day"),
        ("{predictions: {rows: 5d}}", "'5d' is shorter than schedules.horizon (2d) and"),
        ("{segment_report: {rows: 90d}}", "go with those that they are about"),
        ("{predictions: {days: 3}}", "days"),
    ],
)
def test_what_cannot_be_kept_for_a_while_is_refused(tmp_path, retention, problem) -> None:
    with pytest.raises(SpecErrors) as refused:
        declare(tmp_path, retention)
    assert problem in str(refused.value)


def test_how_long_results_are_kept_makes_nothing_stale(tmp_path: Path) -> None:
    before = write_folder(tmp_path, "binary").code_version
    case = declare(tmp_path, "{predictions: {snapshots: 30d}}")
    spec = case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace(FEW, "monitoring: {reference_rows: 200}\n"))
    assert load_use_case(case.folder).code_version == before


@pytest.fixture
def scored(tmp_path: Path):
    """Trips of March, scored by version 1 day by day from the tenth on."""

    def make(retention: str) -> tuple[Lake, UseCase]:
        case = declare(tmp_path, retention)
        made.append(lake := Lake(settings(tmp_path)))
        land(lake, case, trips(1, 20, 4), days(1, 20))
        models = KeptModels()
        promote(lake, case, models.train(lake, case, days(1, 9)), at(10))
        for day in range(10, 21):
            score(lake, models, case, days(day, day), COMMIT)
        return lake, case

    made: list[Lake] = []
    yield make
    for lake in made:
        lake.close()


def count(lake: Lake) -> dict[int, int]:
    with lake.cursor("America/New_York") as cursor:
        rows = cursor.execute(
            "SELECT day(event_time), count(*) FROM lake.trips.predictions GROUP BY 1 ORDER BY 1"
        ).fetchall()
    return dict(rows)


@pytest.mark.slow
def test_old_predictions_are_deleted_and_not_asked_for_again(scored) -> None:
    lake, case = scored("{predictions: {rows: 6d}}")
    now = at(20, 12).astimezone(UTC)
    before = judge(lake, case, days(1, 20))
    (planned,) = plan_upkeep(lake, [case], now).dropped
    assert (planned.windows, planned.rows) == (4, 16)
    assert count(lake) == dict.fromkeys(range(10, 21), 4)

    done = keep_up(lake, [case], COMMIT, now)
    assert done.problems == ()
    assert done.dropped == (planned,)
    assert count(lake) == dict.fromkeys(range(14, 21), 4)
    after = judge(lake, case, days(1, 20))
    for day in range(10, 14):
        state = after["predictions"][days(day, day)]
        assert (state.standing, state.why) == (Standing.empty, "rows are kept for 6d")
    others = [table for table in after if table != "predictions"]
    assert {table: after[table] for table in others if table.endswith("features")} == {
        table: before[table] for table in others if table.endswith("features")
    }
    assert keep_up(lake, [case], COMMIT, now).dropped == ()


@pytest.mark.slow
def test_what_predictions_name_is_kept_for_as_long_as_declared(scored) -> None:
    lake, case = scored("{predictions: {snapshots: 2d}}")
    lake.settings = lake.settings.model_copy(update={"keep_snapshots": "1d"})
    soon = keep_up(lake, [case], COMMIT, datetime.now(UTC) + timedelta(days=1, hours=12))
    assert soon.expiry.reasons["trips.predictions"] == 11
    later = keep_up(lake, [case], COMMIT, datetime.now(UTC) + timedelta(days=3))
    assert "trips.predictions" not in later.expiry.reasons
    assert later.expired >= 11
    assert len(count(lake)) == 11
