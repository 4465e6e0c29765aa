"""How many windows a duration reaches over, held against windows one by one."""

from bisect import bisect_left, bisect_right
from datetime import date, datetime, timedelta

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ml_platform.spec.duration import Duration
from ml_platform.spec.reach import steps_after, steps_before
from ml_platform.spec.windows import Cadence, Calendar, Window
from tests.calendars import DEFINITIONS, around_skipped, calendars, durations, moments_after
from tests.examples import at_most


@given(st.data())
@settings(deadline=None)
def test_partitions_that_a_window_reaches_are_mapped_also_across_a_skipped_day(
    data: st.DataObject,
):
    calendar, duration = data.draw(around_skipped), data.draw(durations)
    zone, steps = calendar.timezone, steps_before(calendar, duration)
    pattern = "%Y-%m-%d-%H:%M" if calendar.cadence == "hourly" else "%Y-%m-%d"
    definition = DEFINITIONS[calendar.cadence](
        start_date=f"{calendar.start:{pattern}}",
        timezone=str(zone),
        **({"day_offset": calendar.week_starts.offset} if calendar.cadence == "weekly" else {}),
    )
    start = data.draw(moments_after(calendar, 60))
    window = calendar.window_at(start)
    edge = duration.before(window.start, zone)
    if duration.count == 0 or edge.timestamp() < calendar.start.timestamp():
        return
    keys = definition.get_partition_keys(window.end + timedelta(days=1))
    farthest = keys.index(calendar.key(window)) - steps
    reached = definition.time_window_for_partition_key(keys[max(0, farthest)])
    assert reached.start.timestamp() <= edge.timestamp()


# A week that clocks shorten, years crossed by months, a zone whose clocks change in the last year.
@example(Calendar.of(Cadence.weekly, date(2018, 1, 1), "Europe/Berlin"), Duration(168, "h"))
@example(Calendar.of(Cadence.monthly, date(2018, 1, 1), "UTC"), Duration(18, "mo"))
@example(Calendar.of(Cadence.daily, date(2018, 1, 1), "Africa/Cairo"), Duration(24, "h"))
@given(calendars, durations)
@settings(deadline=None, max_examples=at_most(15))
def test_steps_reach_exactly_as_far_as_the_duration(calendar: Calendar, duration: Duration):
    zone, windows = calendar.timezone, windows_of_six_years(calendar)
    reached = (
        Window(duration.before(windows[0].start, zone), duration.after(windows[-1].end, zone))
        if duration.count
        else Window(windows[0].start, windows[-1].end)
    )
    first = reached.start - timedelta(days=40)
    early = Calendar.of(calendar.cadence, first, str(zone), calendar.week_starts)
    starts = [window.start.timestamp() for window in early.windows(reached)]

    def touched(start: datetime, end: datetime) -> int:
        first = bisect_right(starts, start.timestamp()) - 1
        return bisect_left(starts, end.timestamp()) - first if duration.count else 0

    before = max(touched(duration.before(w.start, zone), w.start) for w in windows)
    after = max(touched(w.end, duration.after(w.end, zone)) for w in windows)

    assert steps_before(calendar, duration) == before
    assert steps_after(calendar, duration) == after


def windows_of_six_years(calendar: Calendar) -> list[Window]:
    """From the first window of the calendar's first year on: use cases of one year share them."""
    year = date(calendar.start.year, 1, 1)
    whole = Calendar.of(calendar.cadence, year, str(calendar.timezone), calendar.week_starts)
    return list(whole.windows(Window(whole.start, whole.start + timedelta(days=6 * 366))))
