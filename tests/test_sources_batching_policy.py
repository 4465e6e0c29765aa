"""Files that the service writes wait for each other: not for long, and then they cost little."""

import math
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.sources.batching_policy import SHARE_THAT_IS_ENOUGH, due_at

TICK = 30
LONGEST = 3600
DAY = 86_400


@dataclass
class Window:
    """A window that files of some bytes land for at some seconds, looked at every tick."""

    landings: list[tuple[int, float]]
    ingested: list[tuple[float, int]] = field(default_factory=list)
    """When, and of how many bytes."""
    waited: float = 0.0

    def watch(self) -> None:
        left, held, now = sorted(self.landings, key=lambda each: each[1]), 0, 0.0
        while left:
            there = [each for each in left if each[1] <= now]
            if there and now >= due_at(there, held, LONGEST):
                left = left[len(there) :]
                held += sum(size for size, _ in there)
                self.ingested.append((now, held))
                self.waited = max(self.waited, *(now - at for _, at in there))
            now += TICK


@given(
    st.lists(
        st.tuples(st.integers(1, 1_000_000), st.integers(0, DAY)),
        min_size=1,
        max_size=150,
    )
)
def test_everything_is_ingested_within_an_hour_and_a_day_is_read_a_bounded_number_of_times(
    landings: list[tuple[int, float]],
) -> None:
    window = Window(landings)
    window.watch()
    assert window.waited <= LONGEST + TICK
    total, first = window.ingested[-1][1], window.ingested[0][1]
    assert total == sum(size for size, _ in landings)
    # The first, then one for each tenth more, and one an hour until an hour after the last landed.
    growth = 1 + SHARE_THAT_IS_ENOUGH
    hours = (DAY + LONGEST + TICK) // LONGEST
    assert len(window.ingested) <= 1 + math.log(total / first, growth) + hours + 1e-6
    # What grows by a tenth each time sums up to eleven times the last; the hours to one each.
    assert sum(read for _, read in window.ingested) <= (growth / SHARE_THAT_IS_ENOUGH + hours) * (
        total + 1e-6
    )


@given(st.integers(1, 2000), st.integers(1, 1000))
def test_a_day_of_equal_files_is_ingested_few_times_however_many_they_are(
    files: int, size: int
) -> None:
    window = Window([(size, DAY * number / files) for number in range(files)])
    window.watch()
    growth = 1 + SHARE_THAT_IS_ENOUGH
    assert len(window.ingested) <= 1 + math.log(files, growth) + 25


def test_a_file_of_a_closed_day_that_weighs_enough_does_not_wait() -> None:
    window = Window([(100, 0), (9, 60), (1, 90), (1, 120)])
    window.watch()
    assert window.ingested == [(0, 100), (90, 110), (120 + LONGEST, 111)]
