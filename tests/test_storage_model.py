"""Random sequences of replaced windows: after each, the lake equals a dict of Python."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_platform.settings import Settings
from ml_platform.spec.windows import Cadence, Calendar, Window
from ml_platform.storage import Commit, Lake, Table, replace_windows
from tests.examples import at_most

NEW_YORK = ZoneInfo("America/New_York")
TABLE = Table(
    "uc",
    "readings",
    {"seen_at": "TIMESTAMPTZ", "sensor": "VARCHAR", "value": "DOUBLE"},
    order=("seen_at", "sensor"),
)
COMMIT = Commit("run", "code")
# The hour from 2:00 does not exist on the first day, the one from 1:00 comes twice on the second.
BEFORE_CLOCKS_CHANGE = tuple(
    datetime(2013, month, day, 20, tzinfo=NEW_YORK) for month, day in [(3, 9), (11, 2)]
)
HORIZON = 12
Row = tuple[datetime, str | None, float | None]


@pytest.fixture(scope="module")
def lake(catalog_settings: Settings) -> Iterator[Lake]:
    lake = Lake(catalog_settings)
    yield lake
    lake.close()


@st.composite
def histories(draw: st.DrawFn) -> tuple[Calendar, list[tuple[Window, dict[tuple, float | None]]]]:
    cadence = draw(st.sampled_from([Cadence.hourly, Cadence.daily, Cadence.monthly]))
    start = draw(st.sampled_from(BEFORE_CLOCKS_CHANGE))
    calendar = Calendar.of(cadence, start, "America/New_York")
    windows = [calendar.window_at(calendar.start)]
    while len(windows) < HORIZON:
        windows.append(calendar.window_at(windows[-1].end))
    steps = []
    for _ in range(draw(st.integers(1, 4))):
        first, last = sorted(draw(st.lists(st.integers(0, HORIZON - 1), min_size=2, max_size=2)))
        window_range = Window(windows[first].start, windows[last].end)
        begin = window_range.start.astimezone(UTC)
        seconds = int((window_range.end.astimezone(UTC) - begin).total_seconds())
        edges = [0, seconds // 2, seconds - 1]
        moments = st.one_of(st.sampled_from(edges), st.integers(0, seconds - 1)).map(
            lambda s, begin=begin: begin + timedelta(seconds=s)
        )
        sensors = st.sampled_from(["a", "ä'b", "", None])
        values = st.one_of(st.none(), st.sampled_from([0.0, 1.0, 1.0 + 2**-52, -1e300]))
        steps.append((window_range, draw(st.dictionaries(st.tuples(moments, sensors), values))))
    return calendar, steps


def window_start_of(moment: datetime, cadence: Cadence) -> datetime:
    """Written without the calendar, to check it."""
    local = moment.astimezone(NEW_YORK)
    match cadence:
        case Cadence.hourly:
            start = moment.replace(minute=0, second=0)
        case Cadence.daily:
            start = datetime(local.year, local.month, local.day, tzinfo=NEW_YORK)
        case _:
            start = datetime(local.year, local.month, 1, tzinfo=NEW_YORK)
    return start.astimezone(UTC).replace(tzinfo=None)


def replace(lake: Lake, calendar: Calendar, window_range: Window, rows: list[Row]):
    with lake.cursor("America/New_York") as cursor:
        cursor.execute(
            "CREATE TEMP TABLE given (seen_at TIMESTAMPTZ, sensor VARCHAR, value DOUBLE)"
        )
        if rows:
            cursor.executemany("INSERT INTO given VALUES (?, ?, ?)", rows)
        return replace_windows(
            lake,
            cursor,
            TABLE,
            "FROM given",
            time="seen_at",
            calendar=calendar,
            window_range=window_range,
            commit=COMMIT,
        )


def read(lake: Lake, snapshot: int | None = None) -> dict[tuple, tuple]:
    with lake.cursor() as cursor:
        table = lake.relation(cursor, "uc", "readings", snapshot)
        rows = cursor.execute(
            f"SELECT seen_at, sensor, window_start, value FROM {table}"
        ).fetchall()
    found = {(seen_at.astimezone(UTC), sensor): rest for seen_at, sensor, *rest in rows}
    assert len(found) == len(rows)
    return found


@given(histories())
@settings(
    max_examples=at_most(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_the_lake_equals_a_dict_after_every_replacement_and_at_every_snapshot(lake, history):
    calendar, steps = history
    model: dict[tuple, list] = {}
    states = []
    for window_range, rows in steps:
        inside = {key for key in model if key[0] in window_range}
        model = {key: value for key, value in model.items() if key not in inside}
        for (seen_at, sensor), value in rows.items():
            model[seen_at, sensor] = [window_start_of(seen_at, calendar.cadence), value]
        given_rows = [(seen_at, sensor, value) for (seen_at, sensor), value in rows.items()]

        written = replace(lake, calendar, window_range, given_rows)
        assert sum(written.rows.values()) == len(rows)
        assert read(lake) == model
        states.append((written.snapshot, dict(model)))

        again = replace(lake, calendar, window_range, given_rows[::-1])
        assert (again.snapshot, again.changed) == (written.snapshot, frozenset())

    for snapshot, state in states:
        assert read(lake, snapshot) == state
    assert all(first <= second for (first, _), (second, _) in pairwise(states))
    with lake.cursor() as cursor:
        cursor.execute("DROP SCHEMA lake.uc CASCADE")
