"""A use case whose cadence, start or zone is changed after data exist."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ml_platform.backfill import recalendar
from ml_platform.errors import CalendarChanged
from ml_platform.registry import Registry
from ml_platform.settings import Settings
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Commit, Lake, replace_windows, stored_calendars
from ml_platform.training import decide, train
from tests import trips_use_case as trips
from tests.command_line import Run, command_line
from tests.examples import at_most

COMMIT = Commit("test", "0")
TABLES = ("trips", "quarantine", "pace_features", "labels")
DAILY = "{cadence: daily, start: 2024-03-03, timezone: America/New_York}"
WEEKLY = "{cadence: weekly, start: 2024-03-03, timezone: America/New_York}"


def declare(root: Path, partitions: str, name: str = "trips") -> UseCase:
    use_case = trips.write_folder(root / "use_cases", "binary", name=name)
    spec = use_case.folder / "use_case.yaml"
    old = "{cadence: daily, start: 2024-03-01, timezone: America/New_York}"
    assert old in spec.read_text()
    spec.write_text(spec.read_text().replace(old, partitions))
    return load_use_case(use_case.folder)


def land(root: Path, name: str = "trips") -> None:
    folder = root / "data" / "landing" / name
    folder.mkdir(parents=True)
    rows = trips.trips(3, 23)
    rows["started_at"] = rows["started_at"].map(lambda moment: moment.isoformat())
    for part, chosen in enumerate((rows.iloc[:300], rows.iloc[300:])):
        chosen.to_csv(folder / f"{part}.csv", index=False)
    # A row that breaks its contract, in the middle of a week.
    broken = rows.iloc[[170]].assign(trip=1, distance="far")
    broken.to_csv(folder / "broken.csv", index=False)


@pytest.fixture
def run(
    either_catalog: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run the command line on trips that have landed; returns exit code and what was said."""
    monkeypatch.setenv("ML_PLATFORM_USE_CASES", str(tmp_path / "use_cases"))
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("ML_PLATFORM_DAGSTER_URL", "http://127.0.0.1:9")
    if either_catalog.catalog is not None:
        monkeypatch.setenv("ML_PLATFORM_CATALOG", either_catalog.catalog)
    land(tmp_path)

    return command_line(monkeypatch, capsys)


def held(use_case: UseCase, table: str, lake: Lake) -> pd.DataFrame:
    with lake.cursor() as cursor:
        if table not in lake.tables(cursor, use_case.name):
            return pd.DataFrame()
        return cursor.execute(
            f"SELECT * EXCLUDE (_snapshot) FROM lake.{use_case.name}.{table} ORDER BY ALL"
        ).fetch_df()


def everything(use_case: UseCase) -> dict[str, pd.DataFrame]:
    lake = Lake(Settings())
    found = {table: held(use_case, table, lake) for table in TABLES}
    lake.close()
    return found


def computed(run: Run, name: str = "trips") -> None:
    for command in ("ingest", "features", "labels"):
        code, said = run(command, name)
        assert code == 0, said


COMMANDS = {
    "ingest": ("ingest", "trips"),
    "features": ("features", "trips"),
    "labels of one": ("labels", "trips", "--partition", "2024-03-10"),
    "labels": ("labels", "trips"),
    "train": ("train", "trips", "--cutoff", "2024-03-17"),
    "score": ("score", "trips", "--partition", "2024-03-17"),
    "drift": ("drift", "trips", "--partition", "2024-03-17"),
    "performance": ("performance", "trips", "--partition", "2024-03-17"),
    "publish": ("publish", "trips", "--partition", "2024-03-17"),
    "backfill": ("backfill", "trips", "--here"),
    "check": ("check", "trips"),
}


@pytest.mark.slow
def test_a_changed_cadence_is_refused_by_every_command_and_nothing_is_lost(
    run: Run, tmp_path: Path
) -> None:
    use_case = declare(tmp_path, WEEKLY)
    computed(run)
    before = everything(use_case)
    assert len(before["labels"]) == 21 * 40
    declare(tmp_path, DAILY)
    for name, arguments in COMMANDS.items():
        code, said = run(*arguments)
        assert code == 1, (name, said)
        assert "was written by the calendar weekly from 2024-03-03" in said, (name, said)
        assert "ml-platform recalendar trips" in said, name
    code, said = run("status", "trips")
    assert (code, "trips is broken: trips." in said) == (1, True), said
    for table, rows in everything(use_case).items():
        pd.testing.assert_frame_equal(rows, before[table])
    declare(tmp_path, WEEKLY)
    assert run("labels", "trips")[0] == 0
    assert run("check", "trips")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(WEEKLY, DAILY), (DAILY, WEEKLY)])
def test_what_was_moved_and_computed_again_is_what_a_new_lake_holds(
    run: Run, tmp_path: Path, before: str, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    declare(tmp_path, before)
    computed(run)
    use_case = declare(tmp_path, after)
    code, said = run("recalendar", "trips")
    assert code == 0, said
    assert "trips: 840 rows, all kept, lie in the new windows" in said
    assert len(everything(use_case)["trips"]) == 840
    code, said = run("backfill", "trips", "--with-sources", "--here")
    assert code == 0, said
    found = everything(use_case)
    assert "lies in the windows that it declares already" in run("recalendar", "trips")[1]
    monkeypatch.delenv("ML_PLATFORM_CATALOG", raising=False)
    monkeypatch.setenv("ML_PLATFORM_DATA", str(tmp_path / "new" / "data"))
    land(tmp_path / "new")
    computed(run)
    for table, rows in everything(use_case).items():
        assert len(rows) > 0, table
        pd.testing.assert_frame_equal(rows, found[table])


@pytest.mark.slow
def test_rows_whose_files_are_gone_are_moved_and_stay(run: Run, tmp_path: Path) -> None:
    declare(tmp_path, WEEKLY)
    computed(run)
    for file in (tmp_path / "data" / "landing" / "trips").glob("*.csv"):
        file.unlink()
    use_case = declare(tmp_path, DAILY)
    assert run("recalendar", "trips")[0] == 0
    code, said = run("backfill", "trips", "--with-sources", "--here")
    assert code == 0, said
    found = everything(use_case)
    assert {table: len(rows) for table, rows in found.items()} == {
        "trips": 840, "quarantine": 1, "pace_features": 840, "labels": 840,
    }  # fmt: skip
    assert found["trips"]["window_start"].nunique() == 21


@pytest.mark.slow
def test_a_moved_start_is_refused_and_settled_without_moving_a_row(
    run: Run, tmp_path: Path
) -> None:
    declare(tmp_path, DAILY)
    computed(run)
    earlier = declare(tmp_path, DAILY.replace("03-03", "03-02"))
    code, said = run("labels", "trips")
    assert code == 1
    assert "`partitions` now says daily from 2024-03-02" in said
    before = everything(earlier)
    assert run("recalendar", "trips")[0] == 0
    for table, rows in everything(earlier).items():
        pd.testing.assert_frame_equal(rows, before[table])
    code, said = run("backfill", "trips", "--with-sources", "--here")
    assert code == 0, said
    # A later start: what lies before it stays, and is of no partition.
    later = declare(tmp_path, DAILY.replace("03-03", "03-05"))
    assert run("recalendar", "trips")[0] == 0
    assert run("labels", "trips")[0] == 0
    assert len(everything(later)["labels"]) == 840


def test_a_version_from_before_is_not_judged_by_rows_in_other_windows(tmp_path: Path) -> None:
    settings = trips.settings(tmp_path)
    lake, registry = Lake(settings), Registry(settings)
    use_case = trips.write_folder(tmp_path, "binary")
    trips.land(lake, use_case, trips.trips(1, 28), trips.days(1, 28))
    version = train(lake, registry, use_case, trips.at(25), COMMIT, tags={}).version
    spec = use_case.folder / "use_case.yaml"
    spec.write_text(spec.read_text().replace("cadence: daily", "cadence: monthly"))
    monthly = load_use_case(use_case.folder)
    assert recalendar(lake, monthly, COMMIT).moved == {"trips": 28 * 40}
    with pytest.raises(CalendarChanged, match="train a version since then"):
        decide(lake, registry, monthly, version, COMMIT, decided_by="test")
    lake.close()


CALENDARS = st.builds(
    "{{cadence: {}, start: {}, timezone: {}, week_starts: {}}}".format,
    st.sampled_from(["hourly", "daily", "weekly", "monthly"]),
    st.sampled_from(["2024-01-01", "2024-02-01"]),
    st.sampled_from(["UTC", "America/New_York", "Asia/Tokyo"]),
    st.sampled_from(["sunday", "monday", "saturday"]),
)


@pytest.fixture(scope="module")
def lakes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Lake]]:
    root = tmp_path_factory.mktemp("recalendar")
    lake = Lake(trips.settings(root))
    yield root, lake
    lake.close()


@pytest.mark.slow
@given(first=CALENDARS, second=CALENDARS, days=st.integers(1, 25), seed=st.integers(0, 99))
@hypothesis_settings(
    deadline=None,
    max_examples=at_most(8),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_moved_rows_are_those_that_the_second_calendar_would_have_written(
    lakes: tuple[Path, Lake], first: str, second: str, days: int, seed: int
) -> None:
    root, lake = lakes
    rows = trips.trips(2, 1 + days, a_day=3, seed=seed).assign(known_at=trips.at(1))
    rows = rows[rows["started_at"] >= trips.at(2)]

    def write(name: str, partitions: str) -> UseCase:
        use_case = declare(root, partitions, name)
        from ml_platform.sources.tables import source_table

        table = source_table(use_case, "trips")
        stored = rows.assign(_file="a", _row=range(len(rows)))
        begin = use_case.calendar.window_at(trips.at(1)).start
        window = Window(begin, trips.at(1) + timedelta(days=40))
        with lake.cursor(use_case.timezone) as cursor:
            cursor.execute(f"DROP SCHEMA IF EXISTS lake.{name} CASCADE")
            cursor.register("stored", stored)
            replace_windows(
                lake, cursor, table, "FROM stored", time="started_at",
                calendar=use_case.calendar, window_range=window, commit=COMMIT,
            )  # fmt: skip
            cursor.unregister("stored")
        return use_case

    write("moved", first)
    direct = write("direct", second)
    recalendar(lake, declare(root, second, "moved"), COMMIT)
    with lake.cursor() as cursor:
        found, expected = (
            cursor.execute(
                f"SELECT * EXCLUDE (_snapshot) FROM lake.{name}.trips ORDER BY ALL"
            ).fetchall()
            for name in ("moved", "direct")
        )
        assert found == expected
        stored = stored_calendars(cursor, "moved")["trips"]
    assert stored is not None
    assert stored.is_of(direct.calendar)
