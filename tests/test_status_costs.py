"""What tables and models took is read from what was committed and registered."""

import json
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from ml_platform.backfill import computing
from ml_platform.cli import main
from ml_platform.features import check_and_note, compute_features, compute_labels
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.use_case import UseCase
from ml_platform.status import Cost, read_costs, read_health, summed, training_costs
from ml_platform.storage import Lake
from ml_platform.training import train
from tests import trips_use_case as trips

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DAYS = trips.days(1, 20)


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path / "use_cases", "binary")


def landed(lake: Lake, use_case: UseCase) -> None:
    """Examples alone."""
    trips.land(lake, use_case, trips.trips(1, 20), DAYS)
    with lake.cursor() as cursor:
        for table in ("pace_features", "labels"):
            cursor.execute(f"DROP TABLE lake.trips.{table}")


def featured(lake: Lake, use_case: UseCase) -> int:
    """Rows that were written."""
    with computing(lake, use_case, "pace_features", DAYS, "monday") as commit:
        written = compute_features(lake, use_case, "pace", DAYS, commit)
        check_and_note(lake, use_case, "pace", written, commit)
    return sum(written.rows.values())


def costs_of(lake: Lake, use_case: UseCase) -> dict[str, Cost]:
    found = read_costs(lake, use_case, LONG_AGO)
    trained = training_costs(Registry(lake.settings), use_case, LONG_AGO)
    return {cost.table: cost for cost in (*found, *trained)}


def test_tables_and_models_cost_what_was_committed(
    either_catalog: Settings, use_case: UseCase
) -> None:
    lake = Lake(either_catalog)
    landed(lake, use_case)
    assert costs_of(lake, use_case) == {}
    before = datetime.now(UTC)
    rows = featured(lake, use_case)
    with computing(lake, use_case, "labels", DAYS, "tuesday") as commit:
        compute_labels(lake, use_case, DAYS, commit)
    registry = Registry(lake.settings)
    trained = train(lake, registry, use_case, trips.at(19), trips.COMMIT, tags={})
    found = costs_of(lake, use_case)
    check = "pace_features: leak check"
    assert set(found) == {"pace_features", check, "labels", "model"}
    assert (found[check].runs, found[check].rows) == (1, 0)
    features, model = found["pace_features"], found["model"]
    assert (features.runs, features.rows, features.engine) == (1, rows, "in process")
    assert 0 < features.seconds <= (datetime.now(UTC) - before).total_seconds()
    with lake.cursor() as cursor:
        (size,) = cursor.execute(
            "SELECT sum(data_file_size_bytes) FROM ducklake_list_files('lake', 'pace_features', "
            "schema => 'trips')"
        ).fetchone() or (0,)
    assert features.bytes == int(size or 0)
    today = datetime.now(use_case.calendar.timezone).date()
    assert features.day in {today, today - timedelta(days=1)}
    assert model.rows == sum(trained.rows.values())
    assert model.seconds > 0
    lake.close()


def test_what_was_found_as_it_was_is_not_counted(lake: Lake, use_case: UseCase) -> None:
    landed(lake, use_case)
    featured(lake, use_case)
    first = costs_of(lake, use_case)["pace_features"]
    with computing(lake, use_case, "pace_features", DAYS, "tuesday") as commit:
        compute_features(lake, use_case, "pace", DAYS, commit)
    assert costs_of(lake, use_case)["pace_features"] == first
    assert read_costs(lake, use_case, datetime.now(UTC)) == ()


def test_status_knows_them_where_mlflow_does_not_answer(tmp_path: Path, use_case: UseCase) -> None:
    lake = Lake(Settings(data=tmp_path / "data", mlflow_tracking_uri="http://127.0.0.1:9"))
    landed(lake, use_case)
    featured(lake, use_case)
    health = read_health(lake, use_case, datetime.now(UTC))
    assert [cost.table for cost in health.costs] == ["pace_features", "pace_features: leak check"]
    lake.close()


def test_days_are_summed() -> None:
    one = Cost("trips", "labels", date(2024, 1, 1), "in process", 1, 2.5, 10, 100)
    other = Cost("trips", "labels", date(2024, 1, 2), "in process", 2, 1.5, 1, 0)
    spark = Cost("trips", "labels", date(2024, 1, 2), "spark", 1, 9.0, 1, 0)
    assert summed([one, spark, other]) == (
        Cost("trips", "labels", None, "in process", 3, 4.0, 11, 100),
        Cost("trips", "labels", None, "spark", 1, 9.0, 1, 0),
    )


def test_the_command_shows_them(
    tmp_path: Path,
    use_case: UseCase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path))

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ml-platform", "costs", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    assert run() == "nothing was computed in the last 30 days\n"
    lake = Lake(Settings())
    landed(lake, use_case)
    rows = featured(lake, use_case)
    lake.close()
    assert f"for {rows:,} rows" in run("trips", "--daily")
    cost, check = json.loads(run("--json"))
    assert (cost["use_case"], cost["table"], cost["rows"]) == ("trips", "pace_features", rows)
    assert check["table"] == "pace_features: leak check"
