"""Until when a feature row may be joined: by the clock, by DuckDB, by partitions, online."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_platform.features import (
    OnlineStore,
    assemble,
    feature_view_table,
    online_features,
    open_online_store,
    publish_views,
)
from ml_platform.settings import Settings
from ml_platform.sources import source_table
from ml_platform.spec.duration import Duration
from ml_platform.spec.expiry import Expiry
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Cadence, Calendar, Window, utc
from ml_platform.storage import Commit, Lake, Table, replace_windows
from tests.examples import at_most

MICROSECOND = timedelta(microseconds=1)
CHANGES = {
    "Europe/Helsinki": ["2024-03-31 01:00", "2024-10-27 01:00"],
    "America/New_York": ["2024-03-10 07:00", "2024-11-03 06:00"],
    "America/Havana": ["2024-03-10 05:00", "2024-11-03 05:00"],
    "America/Nuuk": ["2024-03-31 01:00", "2024-10-27 01:00"],
    "Australia/Lord_Howe": ["2024-04-06 15:00", "2024-10-05 15:30"],
    "Antarctica/Troll": ["2024-03-31 01:00", "2024-10-27 01:00"],
    "Pacific/Apia": ["2011-12-30 10:00"],
    "UTC": ["2024-02-29 00:00"],
}
"""Moments in UTC at which zones change their clocks: by an hour, at midnight, by half an hour, by
two hours, by a whole day, never."""
TTLS = ["1d", "2d", "3d", "1w", "4w", "1mo", "2mo", "12mo", "24h", "90m"]


@pytest.fixture
def online_store(tmp_path: Path) -> Iterator[OnlineStore]:
    # What decides is the same for every kind of store.
    store = open_online_store(Settings(data=tmp_path))
    yield store
    store.close()


def in_utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def zone_and_moment() -> st.SearchStrategy[tuple[str, datetime]]:
    """A zone, and a moment within two days of a change of its clocks or of the end of a month."""
    return st.sampled_from(sorted(CHANGES)).flatmap(
        lambda zone: st.tuples(
            st.just(zone),
            st.builds(
                lambda change, back, off: in_utc(change) - back + off,
                st.sampled_from(CHANGES[zone]),
                st.sampled_from([timedelta(days=n) for n in (0, 1, 2, 7, 28, 29, 30, 31, 61)]),
                st.one_of(
                    st.timedeltas(timedelta(days=-2), timedelta(days=2)),
                    st.integers(-96, 96).map(lambda n: n * timedelta(minutes=30)),
                ),
            ),
        )
    )


ttls = st.sampled_from(TTLS).map(Duration.parse)


def expiry_of(zone: str, ttl: str | Duration) -> Expiry:
    return Expiry(Duration.parse(ttl), ZoneInfo(zone))


def at(text: str, zone: str = "Europe/Helsinki") -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone))


@pytest.mark.parametrize(
    ("ttl", "event", "last"),
    [
        ("1d", "2024-03-30 23:30", "2024-03-31 23:30"),
        ("24h", "2024-03-30 23:30", "2024-04-01 00:30"),
        ("1w", "2024-03-30 23:30", "2024-04-06 23:30"),
        ("1mo", "2024-02-19 13:00", "2024-03-19 13:00"),
        ("1mo", "2024-01-31 13:00", "2024-02-29 13:00"),
        # Clocks go from 3:00 to 4:00, so that 3:30 does not exist.
        ("1d", "2024-03-30 03:30", "2024-03-31 02:59:59.999999"),
    ],
)
def test_a_row_expires_when_the_clock_has_passed_its_time(ttl: str, event: str, last: str) -> None:
    assert utc(expiry_of("Europe/Helsinki", ttl).of(at(event))) == utc(at(last))


def test_a_row_expires_with_the_second_of_two_hours() -> None:
    expires = expiry_of("Europe/Helsinki", "1d").of(at("2024-10-26 03:30"))
    assert utc(expires) == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


def test_on_a_day_that_the_zone_skips_a_row_expires_before_it() -> None:
    expires = expiry_of("Pacific/Apia", "2d").of(at("2011-12-28 10:00", "Pacific/Apia"))
    assert utc(expires) == datetime(2011, 12, 30, 10, tzinfo=UTC) - MICROSECOND


def test_an_expiry_in_microseconds_is_a_whole_number() -> None:
    event = 1_711_830_600_000_001
    expires = expiry_of("Europe/Helsinki", "1d").of_microseconds(event)
    assert (expires, type(expires)) == (event + 23 * 3_600_000_000, int)


def test_an_exact_expiry_is_shown_in_the_zone() -> None:
    shown = expiry_of("Europe/Helsinki", "24h").of(datetime(2024, 3, 30, 21, 30, tzinfo=UTC))
    assert str(shown) == "2024-04-01 00:30:00+03:00"


def test_a_step_back_to_a_time_that_comes_twice_is_to_the_first() -> None:
    late = at("2024-10-30 03:30").replace(fold=1)
    found = Duration(3, "d").before(late, ZoneInfo("Europe/Helsinki"))
    assert utc(found) == datetime(2024, 10, 27, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "moment", "sign", "reached"),
    [
        # From 23:00 to midnight: an hour is skipped, and not the day.
        ("America/Nuuk", "2024-03-31 23:30", -1, "2024-03-31 00:00"),
        ("America/Nuuk", "2024-03-29 23:30", +1, "2024-03-31 00:00"),
        # From 3:00 to 4:00.
        ("Europe/Helsinki", "2024-04-01 03:30", -1, "2024-03-31 04:00"),
        ("Europe/Helsinki", "2024-03-30 03:30", +1, "2024-03-31 04:00"),
        ("Europe/Helsinki", "2024-04-01 02:30", -1, "2024-03-31 02:30"),
        # From 1:00 to 3:00.
        ("Antarctica/Troll", "2024-04-01 02:30", -1, "2024-03-31 03:00"),
    ],
)
def test_a_step_to_a_time_that_the_clocks_skip_ends_at_their_jump(
    zone: str, moment: str, sign: int, reached: str
) -> None:
    day, zoned = Duration(1, "d"), ZoneInfo(zone)
    step = day.before if sign < 0 else day.after
    assert utc(step(at(moment, zone), zoned)) == utc(at(reached, zone))


@given(zone_and_moment(), ttls)
@settings(max_examples=at_most(300))
def test_the_clocks_show_a_later_time_from_the_expiry_on(
    zone_moment: tuple[str, datetime], ttl: Duration
) -> None:
    zone, event = zone_moment
    if ttl.is_exact:
        return
    expires = utc(expiry_of(zone, ttl).of(event))
    wall = ttl.on_the_clock(event.astimezone(ZoneInfo(zone))).replace(tzinfo=None)

    def shown(moment: datetime) -> datetime:
        return moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)

    assert shown(expires) <= wall
    assert shown(expires + MICROSECOND) > wall
    assert all(shown(expires + n * timedelta(minutes=7)) > wall for n in range(1, 300))


@given(zone_and_moment(), ttls, st.sampled_from(Cadence))
@settings(max_examples=at_most(500))
@example(("Antarctica/Troll", in_utc("2024-10-26 23:00")), Duration(1, "d"), Cadence.hourly)
def test_what_a_window_looks_back_to_holds_all_rows_that_have_not_expired(
    zone_moment: tuple[str, datetime], ttl: Duration, cadence: Cadence
) -> None:
    zone, event = zone_moment
    expiry = expiry_of(zone, ttl)
    calendar = Calendar.of(cadence, date(2009, 1, 1), zone)
    expires = expiry.of(event)
    # Of all windows in which the row may be joined, the last one looks back least.
    last = calendar.window_at(expires)
    assert utc(ttl.before(last.start, calendar.timezone)) <= utc(event)
    assert utc(ttl.before(expires, calendar.timezone)) <= utc(event)


@given(zone_and_moment(), ttls)
@settings(max_examples=at_most(300))
def test_ages_that_decide_by_themselves_are_right(
    zone_moment: tuple[str, datetime], ttl: Duration
) -> None:
    zone, event = zone_moment
    expiry = expiry_of(zone, ttl)
    age = (utc(expiry.of(event)) - event) // MICROSECOND
    assert expiry.shortest <= age <= expiry.longest


@pytest.fixture(scope="module")
def connection(shared_lake: Lake) -> Iterator[duckdb.DuckDBPyConnection]:
    # In a zone of its own: what is asked may not depend on the session's.
    with shared_lake.cursor("Asia/Kathmandu") as cursor:
        yield cursor


@given(
    zone_and_moment(),
    ttls,
    st.lists(
        st.one_of(
            st.sampled_from([-1, 0, 1]).map(lambda n: n * MICROSECOND),
            st.timedeltas(timedelta(hours=-3), timedelta(hours=3)),
            st.timedeltas(timedelta(days=-3), timedelta(days=3)),
        ),
        min_size=1,
        max_size=8,
    ),
)
@settings(max_examples=at_most(300))
@example(
    ("Pacific/Apia", datetime(2011, 12, 29, 20, tzinfo=UTC)),
    Duration(1, "d"),
    [timedelta(0), MICROSECOND, timedelta(hours=10)],
)
def test_duckdb_says_the_same_as_the_platform(
    connection: duckdb.DuckDBPyConnection,
    zone_moment: tuple[str, datetime],
    ttl: Duration,
    distances: list[timedelta],
) -> None:
    zone, event = zone_moment
    expiry = expiry_of(zone, ttl)
    expires = utc(expiry.of(event))
    asked = [expires + distance for distance in distances]
    rows = ", ".join(f"(TIMESTAMPTZ '{m.isoformat()}')" for m in asked)
    sql = expiry.fresh_sql("m", f"TIMESTAMPTZ '{event.isoformat()}'")
    found = connection.execute(f"SELECT {sql} FROM (VALUES {rows}) t(m)").fetchall()
    assert [fresh for (fresh,) in found] == [moment <= expires for moment in asked]


SPEC = """\
name: {name}
description: Notes about people
partitions: {{cadence: {cadence}, start: {start}, timezone: {zone}}}
sources:
  asks:
    files: "asks.csv"
    event_time: ts
    key: [id]
    columns: {{id: VARCHAR, ts: TIMESTAMPTZ, who: VARCHAR}}
features:
  day: {{entity: [who], lookback: 1d, ttl: 1d}}
  days: {{entity: [who], lookback: 1d, ttl: 2d}}
  month: {{entity: [who], lookback: 1d, ttl: 1mo}}
  hours: {{entity: [who], lookback: 1d, ttl: 24h}}
examples: {{source: asks, entity: [id], columns: []}}
label: {{task: binary}}
model: {{metric: roc_auc}}
"""


def use_case_in(root: Path, zone: str, cadence: str, start: datetime) -> UseCase:
    name = zone.rsplit("/", 1)[-1].lower() + f"_{cadence}_{start:%Y%m%d}"
    folder = root / name
    (folder / "features").mkdir(parents=True)
    (folder / "use_case.yaml").write_text(
        SPEC.format(name=name, zone=zone, cadence=cadence, start=f"{start:%Y-%m-%d}")
    )
    for view in ("day", "days", "month", "hours"):
        (folder / "features" / f"{view}.sql").write_text(
            "SELECT who, ts AS event_time, 1::DOUBLE AS x FROM asks"
        )
    (folder / "labels.sql").write_text(
        "SELECT id, ts AS event_time, true AS label, known_at FROM asks"
    )
    (folder / "model.py").write_text("def build():\n    pass\n")
    return load_use_case(folder)


def put(lake: Lake, use_case: UseCase, table: Table, time: str, frame: pd.DataFrame) -> None:
    first, last = frame[time].min(), frame[time].max() + MICROSECOND
    whole = Window(
        use_case.calendar.window_at(first.to_pydatetime()).start,
        use_case.calendar.window_at(last.to_pydatetime()).end,
    )
    with lake.cursor() as cursor:
        cursor.register("given", frame)
        items = ", ".join(f'CAST("{c}" AS {t}) AS "{c}"' for c, t in table.columns.items())
        replace_windows(
            lake, cursor, table, f"SELECT {items} FROM given", time=time,
            calendar=use_case.calendar, window_range=whole, commit=Commit("test", "0"),
        )  # fmt: skip


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("zone", "cadence"),
    [
        ("Europe/Helsinki", "daily"),
        ("America/Havana", "daily"),
        ("Pacific/Apia", "daily"),
        pytest.param("Europe/Helsinki", "hourly", marks=pytest.mark.slow),
        pytest.param("Antarctica/Troll", "hourly", marks=pytest.mark.slow),
    ],
)
def test_a_range_equals_its_partitions_and_the_online_store(
    shared_lake: Lake, online_store: OnlineStore, tmp_path: Path, zone: str, cadence: str
) -> None:
    change = in_utc(CHANGES[zone][0])
    use_case = use_case_in(tmp_path, zone, cadence, change - timedelta(days=90))
    rng = np.random.default_rng(len(zone))

    def around(days: float, count: int, spread: float) -> list[datetime]:
        hours = rng.uniform(-spread, spread, count)
        return [change + timedelta(days=days, minutes=round(60 * h)) for h in hours]

    noted = [m for days in (-31, -29, -2, -1, 0) for m in around(days, 8, 14)]
    asked = [m for days in (0, 0.5, 1, 1.5) for m in around(days, 12, 14)]
    # A person for each note, so that what is asked of it depends on its age alone.
    notes = pd.DataFrame({"event_time": pd.to_datetime(noted, utc=True), "x": range(len(noted))})
    notes["who"] = [f"w{n}" for n in range(len(noted))]
    asks = pd.DataFrame(
        [(f"{n}-{who}", m, who) for n, m in enumerate(asked) for who in notes["who"]],
        columns=["id", "ts", "who"],
    )
    asks["known_at"] = asks["ts"] = pd.to_datetime(asks["ts"], utc=True)
    put(shared_lake, use_case, source_table(use_case, "asks"), "ts", asks.assign(_file="f", _row=1))
    for view in use_case.features:
        put(shared_lake, use_case, feature_view_table(use_case, view), "event_time", notes)
    calendar = use_case.calendar
    whole = Window(calendar.window_at(min(asked)).start, calendar.window_at(max(asked)).end)

    def joined(within: Window) -> pd.DataFrame:
        with shared_lake.cursor(use_case.timezone) as cursor:
            snapshot = shared_lake.snapshot(cursor)
            return assemble(cursor, shared_lake, use_case, within, snapshot)

    in_a_range = joined(whole)
    alone = pd.concat([joined(w) for w in calendar.windows(whole)], ignore_index=True)
    pd.testing.assert_frame_equal(alone, in_a_range)
    who = in_a_range["id"].str.split("-").str[1]
    at_event = dict(zip(notes["who"], noted, strict=True))
    for view in use_case.features:
        expiry = use_case.expiry(view)
        expected = [
            float(person[1:])
            if utc(at_event[person]) <= moment <= utc(expiry.of(at_event[person]))
            else np.nan
            for person, moment in zip(who, in_a_range["event_time"], strict=True)
        ]
        np.testing.assert_array_equal(in_a_range[f"{view}__x"], expected)
        assert 0 < np.isnan(expected).sum() < len(expected)
    publish_views(shared_lake, online_store, use_case, whole)
    newest = in_a_range["event_time"] >= max(noted)
    found = online_features(online_store, use_case, in_a_range.assign(who=who)[newest])
    columns = [f"{view}__x" for view in use_case.features]
    pd.testing.assert_frame_equal(found[columns], in_a_range.loc[newest, columns])
