"""Which partitions have to be computed: missing, failed, stale by code, by data, by champion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.backfill import Standing, computing, judge
from ml_platform.backfill.computation_history import gather
from ml_platform.backfill.staleness import Greatest
from ml_platform.errors import NoChampion
from ml_platform.features import compute_features, compute_labels
from ml_platform.monitoring import report_drift
from ml_platform.scoring import score
from ml_platform.spec.duration import Duration
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from ml_platform.storage import Lake, Table, replace_windows
from ml_platform.storage.changes import Range
from ml_platform.storage.computations import note
from ml_platform.storage.tables import naive_utc
from tests import kept_models
from tests import trips_use_case as trips

WEEK = trips.days(1, 7)


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    return trips.write_folder(tmp_path / "use_cases", "binary")


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    found = Lake(trips.settings(tmp_path))
    yield found
    found.close()


def ingest(lake: Lake, use_case: UseCase, first: int, last: int, seed: int = 0) -> None:
    rows = trips.trips(first, last, seed=seed)
    columns = {**use_case.sources["trips"].columns, "known_at": "TIMESTAMPTZ"}
    table = Table("trips", "trips", columns, ("started_at", "trip"))
    window_range = trips.days(first, last)
    with (
        lake.cursor(use_case.timezone) as cursor,
        computing(lake, use_case, "trips", window_range, "test") as commit,
    ):
        cursor.register("landed", rows.assign(known_at=rows["started_at"]))
        replace_windows(
            lake, cursor, table, "FROM landed",
            time="started_at", calendar=use_case.calendar, window_range=window_range, commit=commit,
        )  # fmt: skip


def featured(lake: Lake, use_case: UseCase, window_range: Window = WEEK) -> None:
    with computing(lake, use_case, "pace_features", window_range, "test") as commit:
        compute_features(lake, use_case, "pace", window_range, commit)


def standings(
    lake: Lake, use_case: UseCase, table: str = "pace_features", failed: tuple[int, ...] = ()
) -> str:
    """One letter for each day of the week: fresh, empty, missing, stale, X for failed."""
    lost = {table: [use_case.calendar.window_at(trips.at(day)) for day in failed]}
    states = judge(lake, use_case, WEEK, [table], lost)[table]
    letters = {**{s: s.value[0] for s in Standing}, Standing.failed: "X", Standing.empty: "-"}
    return "".join(letters[state.standing] for state in states.values())


def why(lake: Lake, use_case: UseCase, day: int, table: str = "pace_features") -> str:
    window = use_case.calendar.window_at(trips.at(day))
    return judge(lake, use_case, window, [table])[table][window].why


def snapshot(lake: Lake) -> int:
    with lake.cursor() as cursor:
        return lake.snapshot(cursor)


def test_what_has_inputs_and_was_never_computed_is_missing(lake: Lake, use_case: UseCase) -> None:
    assert standings(lake, use_case) == "-------"
    ingest(lake, use_case, 2, 4)
    # The fifth day sees the fourth by its lookback.
    assert standings(lake, use_case) == "-mmmm--"
    assert why(lake, use_case, 6) == "trips has no rows"


def test_what_was_computed_is_fresh_also_where_it_came_out_empty(
    lake: Lake, use_case: UseCase
) -> None:
    ingest(lake, use_case, 2, 4)
    featured(lake, use_case)
    assert standings(lake, use_case) == "-fff---"
    assert why(lake, use_case, 5) == "it came out without rows"


def test_a_corrected_day_makes_exactly_what_sees_it_stale(lake: Lake, use_case: UseCase) -> None:
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    ingest(lake, use_case, 3, 3, seed=1)
    assert standings(lake, use_case) == "ffssfff"
    assert why(lake, use_case, 4) == "trips has changed since"
    featured(lake, use_case, trips.days(3, 4))
    assert standings(lake, use_case) == "fffffff"


def test_an_upstream_that_is_written_again_without_a_change_makes_nothing_stale(
    lake: Lake, use_case: UseCase
) -> None:
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    ingest(lake, use_case, 1, 7)
    assert standings(lake, use_case) == "fffffff"


def test_other_code_makes_stale_and_computing_again_settles_it_also_without_a_change(
    lake: Lake, use_case: UseCase
) -> None:
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    query = use_case.folder / "features" / "pace.sql"
    query.write_text(query.read_text() + "-- the same, in other words\n")
    changed = load_use_case(use_case.folder)
    assert standings(lake, changed) == "sssssss"
    assert why(lake, changed, 3) == "made by older code"
    featured(lake, changed, trips.days(1, 3))
    assert standings(lake, changed) == "fffssss"
    before = snapshot(lake)
    featured(lake, changed, trips.days(1, 3))
    assert snapshot(lake) == before


def test_a_correction_that_changes_no_feature_is_seen_to_once(
    lake: Lake, use_case: UseCase
) -> None:
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    ingest(lake, use_case, 3, 3, seed=1)
    featured(lake, use_case)
    assert standings(lake, use_case) == "fffffff"


def test_a_failed_run_shows_only_where_something_is_due(lake: Lake, use_case: UseCase) -> None:
    ingest(lake, use_case, 1, 4)
    featured(lake, use_case, trips.days(1, 2))
    assert standings(lake, use_case, failed=(2, 3)) == "ffXmm--"


def scored(lake: Lake, use_case: UseCase, models: kept_models.KeptModels) -> None:
    with computing(lake, use_case, "predictions", WEEK, "test") as commit:
        score(lake, models, use_case, WEEK, commit).raise_if_empty()


def test_predictions_wait_for_a_champion_and_follow_it(lake: Lake, use_case: UseCase) -> None:
    models = kept_models.KeptModels()
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    with computing(lake, use_case, "labels", WEEK, "test") as commit:
        compute_labels(lake, use_case, WEEK, commit)
    assert standings(lake, use_case, "predictions") == "-------"
    assert why(lake, use_case, 3, "predictions") == "no champion yet"
    with pytest.raises(NoChampion):
        scored(lake, use_case, models)

    one, other = (models.train(lake, use_case, trips.days(1, 7)) for _ in range(2))
    kept_models.promote(lake, use_case, one, trips.at(3))
    assert standings(lake, use_case, "predictions") == "--mmmmm"
    scored(lake, use_case, models)
    assert standings(lake, use_case, "predictions") == "--fffff"

    kept_models.promote(lake, use_case, other, trips.at(6))
    assert standings(lake, use_case, "predictions") == "--fffss"
    assert why(lake, use_case, 6, "predictions") == "made by version 1, version 2 serves"
    scored(lake, use_case, models)
    assert standings(lake, use_case, "predictions") == "--fffff"


@pytest.fixture
def reported(lake: Lake, use_case: UseCase) -> tuple[UseCase, kept_models.KeptModels]:
    """A week that is done, drift of trails of two days among it."""
    models = kept_models.KeptModels()
    watched = use_case.monitoring.model_copy(update={"window": Duration(2, "d")})
    use_case = use_case.model_copy(update={"monitoring": watched})
    ingest(lake, use_case, 1, 7)
    featured(lake, use_case)
    with computing(lake, use_case, "labels", WEEK, "test") as commit:
        compute_labels(lake, use_case, WEEK, commit)
    kept_models.promote(lake, use_case, models.train(lake, use_case, WEEK), trips.at(2))
    scored(lake, use_case, models)
    with computing(lake, use_case, "drift_report", WEEK, "test") as commit:
        report_drift(lake, models, use_case, WEEK, commit)
    assert standings(lake, use_case, "drift_report") == "-ffffff"
    return use_case, models


@pytest.mark.slow
def test_a_window_is_judged_alike_alone_and_in_a_range(
    lake: Lake, reported: tuple[UseCase, kept_models.KeptModels]
) -> None:
    use_case, _ = reported
    ingest(lake, use_case, 2, 2, seed=1)
    assert standings(lake, use_case, "drift_report") == "-ssffff"
    featured(lake, use_case, trips.days(2, 2))
    together = judge(lake, use_case, WEEK)
    for table, states in together.items():
        for window, state in states.items():
            alone = judge(lake, use_case, window, [table])
            assert alone[table][window] == state, f"{table} of {window}"


@pytest.mark.slow
def test_a_range_begins_again_when_what_only_its_first_window_sees_changes(
    lake: Lake,
    reported: tuple[UseCase, kept_models.KeptModels],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    use_case, models = reported
    transact, begun = lake.transact, []

    def corrected_meanwhile(*arguments: Any) -> Any:
        begun.append(snapshot(lake))
        if len(begun) == 1:
            other = Lake(lake.settings)
            ingest(other, use_case, 1, 1, seed=1)
            other.close()
        return transact(*arguments)

    with (
        computing(lake, use_case, "drift_report", WEEK, "test") as commit,
        monkeypatch.context() as patched,
    ):
        patched.setattr(lake, "transact", corrected_meanwhile)
        report_drift(lake, models, use_case, WEEK, commit)
    assert len(begun) == 2
    assert begun[1] > begun[0]
    assert standings(lake, use_case, "drift_report") == "-ffffff"


@given(numbers=st.lists(st.integers(0, 9), max_size=40), bounds=st.data())
def test_the_greatest_of_any_slice_is_found(numbers: list[int], bounds: st.DataObject) -> None:
    places = st.integers(0, len(numbers))
    first, end = bounds.draw(places), bounds.draw(places)
    assert Greatest(numbers).within(first, end) == max(numbers[first:end], default=0)


@pytest.mark.slow
def test_what_is_noted_very_often_stays_a_few_files_and_the_latest_counts(
    lake: Lake, use_case: UseCase
) -> None:
    ingest(lake, use_case, 2, 4)
    start = naive_utc(trips.at(2))
    with lake.cursor() as cursor:
        for turn in range(40):
            begun_at = snapshot(lake)
            note(lake, cursor, use_case, "labels", begun_at, {start: f"turn {turn}"}, trips.COMMIT)
        # Of two that began to read at the same snapshot, the one that was noted last.
        note(lake, cursor, use_case, "labels", begun_at, {start: "again"}, trips.COMMIT)
        note(lake, cursor, use_case, "labels", 0, {start: "long before"}, trips.COMMIT)
        found = gather(lake, cursor, use_case, {"labels": Range.of([start])})
        (files,) = cursor.execute(
            "SELECT count(*) FROM ducklake_list_files('lake', 'computations', schema => 'trips')"
        ).fetchall()
    assert found["labels"][start].reason == "again"
    assert files[0] <= 18


def test_only_the_windows_of_a_range_are_gathered(lake: Lake, use_case: UseCase) -> None:
    ingest(lake, use_case, 1, 7)
    days = [naive_utc(trips.at(day)) for day in (3, 4)]
    with lake.cursor() as cursor:
        found = gather(lake, cursor, use_case, {"trips": Range.of(days)})
    assert sorted(found["trips"]) == days
