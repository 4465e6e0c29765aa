"""Windows of event time, held against Dagster's own partitions."""

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_platform.spec.duration import Duration
from ml_platform.spec.windows import Cadence, Calendar, Weekday, Window
from tests.calendars import DEFINITIONS, SKIPPED, ZONES, around_skipped, calendars, moments_after

# Around both clock changes of a year, in New York, in Berlin and where they fall on midnight.
RANGES = {
    Cadence.hourly: [
        (date(2018, 11, 1), date(2018, 11, 8)),
        (date(2024, 3, 7), date(2024, 4, 9)),
        (date(2024, 10, 24), date(2024, 11, 5)),
    ],
    Cadence.daily: [(date(2018, 2, 1), date(2018, 12, 1)), (date(2024, 2, 1), date(2024, 12, 1))],
    Cadence.weekly: [(date(2018, 1, 1), date(2020, 1, 1)), (date(2024, 2, 1), date(2025, 2, 1))],
    Cadence.monthly: [(date(2018, 1, 1), date(2020, 1, 1)), (date(2024, 2, 1), date(2025, 2, 1))],
}


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("cadence", Cadence)
def test_keys_and_windows_are_those_of_dagster(cadence: Cadence, zone: str):
    for first, last in RANGES[cadence]:
        pattern = "%Y-%m-%d-%H:%M" if cadence is Cadence.hourly else "%Y-%m-%d"
        definition = DEFINITIONS[cadence](start_date=f"{first:{pattern}}", timezone=zone)
        now = datetime(last.year, last.month, last.day, tzinfo=ZoneInfo(zone))
        calendar = Calendar.of(cadence, first, zone)
        windows = [w for w in calendar.windows(Window(calendar.start, now)) if w.end <= now]

        keys = definition.get_partition_keys(current_time=now)

        assert [calendar.key(window) for window in windows] == keys
        for key, window in zip(keys, windows, strict=True):
            theirs = definition.time_window_for_partition_key(key)
            ours = (window.start.timestamp(), window.end.timestamp())
            assert ours == (theirs.start.timestamp(), theirs.end.timestamp())


@pytest.mark.parametrize("weekday", Weekday)
@pytest.mark.parametrize("zone", [*ZONES, *SKIPPED])
def test_weeks_begin_on_the_day_that_dagster_is_given(weekday: Weekday, zone: str):
    for first, last in [*RANGES[Cadence.weekly], (date(2011, 11, 1), date(2012, 3, 1))]:
        definition = dg.WeeklyPartitionsDefinition(
            start_date=str(first), timezone=zone, day_offset=weekday.offset
        )
        now = datetime(last.year, last.month, last.day, tzinfo=ZoneInfo(zone))
        calendar = Calendar.of(Cadence.weekly, first, zone, weekday)
        windows = [w for w in calendar.windows(Window(calendar.start, now)) if w.end <= now]
        assert [calendar.key(w) for w in windows] == definition.get_partition_keys(now)
        assert {w.start.strftime("%A").lower() for w in windows} == {weekday}


@pytest.mark.parametrize("zone", SKIPPED)
def test_a_day_that_the_zone_skips_is_no_partition(zone: str):
    day = SKIPPED[zone]
    calendar = Calendar.of(Cadence.daily, day - timedelta(days=2), zone)
    windows = list(calendar.windows(Window(calendar.start, calendar.start + timedelta(days=5))))
    keys = [str(day + timedelta(days=days)) for days in (-2, -1, 1, 2)]
    assert [calendar.key(window) for window in windows] == keys
    lengths = [w.end.timestamp() - w.start.timestamp() for w in windows]
    assert set(lengths) == {86_400}
    with pytest.raises(ValueError, match=f"write '{day + timedelta(days=1)}'"):
        calendar.window(str(day))
    # Dagster has two names for the day after; both are one window.
    definition = dg.DailyPartitionsDefinition(start_date=str(day), timezone=zone)
    theirs = definition.time_window_for_partition_key(str(day))
    assert theirs.start.timestamp() == windows[2].start.timestamp()
    assert calendar.window_at(theirs.start) == windows[2]
    assert calendar.window_listed(str(day)) == windows[2]
    assert calendar.window_listed(keys[0]) == windows[0]
    for other in (str(day - timedelta(days=9)), "2024-13-01"):
        with pytest.raises(ValueError, match="daily partition"):
            calendar.window_listed(other)


@pytest.mark.parametrize("zone", SKIPPED)
@pytest.mark.parametrize("text", ["1d", "24h", "2d", "1w", "1mo", "90m"])
def test_every_duration_before_the_end_of_a_window_is_before_it(zone: str, text: str):
    duration = Duration.parse(text)
    for cadence in Cadence:
        calendar = Calendar.of(cadence, SKIPPED[zone] - timedelta(days=40), zone)
        until = calendar.start + timedelta(days=80)
        for window in calendar.windows(Window(calendar.start, until)):
            assert Window(duration.before(window.end, calendar.timezone), window.end)
            assert Window(window.start, duration.after(window.start, calendar.timezone))


def test_the_day_before_a_skipped_day_is_the_one_before_both():
    zone = ZoneInfo("Pacific/Apia")
    after, before = datetime(2011, 12, 31, tzinfo=zone), datetime(2011, 12, 29, tzinfo=zone)
    assert Duration.parse("1d").before(after, zone) == before
    assert Duration.parse("2d").before(after, zone) == before
    assert Duration.parse("1d").after(before, zone).timestamp() == after.timestamp()


@given(st.data())
@settings(deadline=None)
def test_windows_tile_event_time_without_gap_or_overlap(data: st.DataObject):
    calendar = data.draw(calendars | around_skipped)
    start = data.draw(moments_after(calendar))
    length = data.draw(st.timedeltas(timedelta(minutes=1), timedelta(days=30)))

    windows = list(calendar.windows(Window(start, start + length)))

    assert start in windows[0]
    assert start + length - timedelta(microseconds=1) in windows[-1]
    for window, following in pairwise(windows):
        assert window.end.timestamp() == following.start.timestamp()
        assert window.start not in following


@given(st.data())
@settings(deadline=None)
def test_a_moment_lies_in_the_one_window_that_its_key_names(data: st.DataObject):
    calendar = data.draw(calendars | around_skipped)
    moment = data.draw(moments_after(calendar))

    window = calendar.window_at(moment)

    assert moment in window
    assert calendar.window(calendar.key(window)) == window
    assert [w for w in calendar.windows(window) if moment in w] == [window]


@pytest.mark.parametrize(
    ("cadence", "key", "said"),
    [
        (Cadence.daily, "2024-1-2", "'2024-1-2' is not a daily partition; write '2024-01-02'$"),
        (Cadence.daily, "2024-13-01", "'2024-13-01' is not a daily partition; they look like"),
        (
            Cadence.daily,
            "2023-12-31",
            "'2023-12-31' is before the first daily partition, '2024-01-01'$",
        ),
        (
            Cadence.weekly,
            "2024-01-08",
            "no weekly partition starts at '2024-01-08'; it is in '2024-01-07'$",
        ),
        (
            Cadence.monthly,
            "2024-02-02",
            "no monthly partition starts at '2024-02-02'; it is in '2024-02-01'$",
        ),
        (Cadence.hourly, "2024-01-01", "they look like '2024-01-01-00:00'"),
    ],
)
def test_a_key_of_no_partition_is_refused_with_one_that_exists(
    cadence: Cadence, key: str, said: str
):
    with pytest.raises(ValueError, match=said):
        Calendar.of(cadence, date(2024, 1, 1), "UTC").window(key)


def test_the_hour_that_clocks_repeat_has_two_names():
    calendar = Calendar.of(Cadence.hourly, date(2024, 11, 1), "America/New_York")
    first = calendar.window("2024-11-03-01:00")
    second = calendar.window("2024-11-03-01:00-0500")

    assert second.start.timestamp() - first.start.timestamp() == 3600


def test_a_day_before_midnight_is_midnight_also_where_clocks_change():
    zone = ZoneInfo("Europe/Berlin")
    monday = datetime(2024, 4, 1, tzinfo=zone)

    assert Duration.parse("1d").before(monday, zone) == datetime(2024, 3, 31, tzinfo=zone)
    assert Duration.parse("24h").before(monday, zone) == datetime(2024, 3, 30, 23, tzinfo=zone)
    assert Duration.parse("1mo").before(monday, zone) == datetime(2024, 3, 1, tzinfo=zone)
    assert Duration.parse("1mo").after(datetime(2024, 1, 31, tzinfo=zone), zone).day == 29


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1y", "1.5h", "100000mo"])
def test_what_is_no_duration_is_refused(text: str):
    with pytest.raises(
        ValueError, match=r"is not a valid duration; write 90m|longer than a century"
    ):
        Duration.parse(text)


def test_a_window_needs_zones_and_an_order():
    start = datetime(2024, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match="ends after it starts"):
        Window(start, start)
    with pytest.raises(ValueError, match="need a time zone"):
        Window(start.replace(tzinfo=None), start)


def test_windows_make_up_unbroken_ranges_in_order_of_time():
    days = Calendar.of(Cadence.daily, date(2024, 3, 1), "America/New_York")
    each = {n: days.window(f"2024-03-{n:02d}") for n in (9, 10, 11, 13, 15, 16)}
    found = list(days.ranges(each[n] for n in (16, 10, 13, 9, 15, 11)))
    assert found == [
        Window(each[9].start, each[11].end), each[13], Window(each[15].start, each[16].end),
    ]  # fmt: skip
    assert list(days.ranges([])) == []
    assert days.keys(found[0]) == ("2024-03-09", "2024-03-11")
    assert days.keys(found[1]) == ("2024-03-13", "2024-03-13")


def test_a_start_without_a_zone_is_one_of_the_use_cases_zone():
    plain = Calendar.of(Cadence.daily, datetime.fromisoformat("2024-03-01"), "Europe/Berlin")
    assert plain == Calendar.of(Cadence.daily, date(2024, 3, 1), "Europe/Berlin")
    assert plain.timezone == ZoneInfo("Europe/Berlin")


def test_no_window_lies_before_the_first_also_in_an_hour_that_clocks_repeat():
    zone = ZoneInfo("Europe/Berlin")
    second = datetime(2024, 10, 27, 2, tzinfo=zone, fold=1)
    calendar = Calendar.of(Cadence.hourly, second, "Europe/Berlin")
    half_past_the_first = datetime(2024, 10, 27, 2, 30, tzinfo=zone)
    found = list(
        calendar.windows(Window(half_past_the_first, datetime(2024, 10, 27, 4, tzinfo=zone)))
    )
    assert [window.start.timestamp() for window in found] == [
        second.timestamp(), second.timestamp() + 3600,
    ]  # fmt: skip


def test_a_history_that_begins_on_a_skipped_day_has_that_name_too():
    calendar = Calendar.of(Cadence.daily, date(2011, 12, 30), "Pacific/Apia")
    assert calendar.window_listed("2011-12-30") == calendar.window("2011-12-31")
    with pytest.raises(ValueError, match="is before the first daily partition"):
        calendar.window_listed("2011-12-29")


@pytest.mark.parametrize(
    ("zone", "whole"),
    [("Europe/Berlin", True), ("Asia/Kolkata", True), ("Australia/Lord_Howe", False)],
)
def test_clocks_that_change_by_half_an_hour_are_distinct_rows(zone: str, whole: bool):
    assert Calendar.of(Cadence.hourly, date(2024, 1, 1), zone).changes_by_whole_hours() is whole
