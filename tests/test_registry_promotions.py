from datetime import UTC, timedelta

import pytest

from ml_platform.errors import NoChampion
from ml_platform.registry import (
    Promotion,
    champion_at,
    champions_of,
    history,
    record,
)
from ml_platform.storage import Lake
from tests.trips_use_case import COMMIT, at, days, settings, write_folder


def promotion(version, day, decided=1, decision="promoted"):
    return Promotion(version, at(day), at(1) + timedelta(hours=decided), "ada", decision, "why")


@pytest.fixture
def world(tmp_path):
    lake = Lake(settings(tmp_path))
    yield lake, write_folder(tmp_path, "binary")
    lake.close()


def test_the_latest_effective_promotion_serves():
    decisions = [promotion(1, 5), promotion(2, 10)]
    assert [champion_at(decisions, at(day)) for day in (5, 9, 10, 20)] == [1, 1, 2, 2]


def test_before_the_first_promotion_there_is_no_champion():
    with pytest.raises(NoChampion, match="no promotion is effective at 2024-03-04"):
        champion_at([promotion(1, 5)], at(4))
    with pytest.raises(NoChampion):
        champion_at([], at(4))


def test_a_refused_version_never_serves():
    decisions = [promotion(1, 5), promotion(2, 10, decision="refused")]
    assert champion_at(decisions, at(20)) == 1


def test_of_two_promotions_from_one_moment_the_later_decision_counts():
    decisions = [promotion(2, 5, decided=3), promotion(1, 5, decided=2)]
    assert champion_at(decisions, at(5)) == 2


def test_a_promotion_decided_later_for_an_earlier_time_leaves_later_times_alone():
    decisions = [promotion(1, 10, decided=1), promotion(2, 5, decided=2)]
    assert [champion_at(decisions, at(day)) for day in (7, 10)] == [2, 1]


def test_a_rollback_ends_the_promotions_before_it_and_not_those_after():
    decisions = [
        promotion(1, 5, decided=1),
        promotion(2, 10, decided=2),
        promotion(3, 15, decided=3),
        promotion(1, 8, decided=4, decision="rolled back"),
        promotion(4, 20, decided=5),
    ]
    assert [champion_at(decisions, at(day)) for day in (7, 12, 17, 20)] == [1, 1, 1, 4]


def test_decisions_come_back_as_they_were_recorded(world):
    lake, use_case = world
    assert history(lake, use_case) == []
    first = Promotion(
        1, at(5), at(6, 7), "ada", "promoted", "it's better", {"champion_roc_auc": 0.5, "rows": 9.0}
    )
    second = Promotion(2, at(4), at(6, 8), "run 'x'", "refused", "worse")
    record(lake, use_case, first, COMMIT)
    record(lake, use_case, second, COMMIT)
    found = history(lake, use_case)
    assert found == [first, second]
    assert found[0].effective_from.tzinfo is UTC


def test_each_window_has_its_champion_or_the_error_that_says_why_not(world):
    lake, use_case = world
    record(lake, use_case, promotion(1, 12), COMMIT)
    record(lake, use_case, promotion(2, 13), COMMIT)
    champions, lacking = champions_of(lake, use_case, days(11, 14))
    assert [(window.start, version) for window, version in champions.items()] == [
        (at(12), 1), (at(13), 2), (at(14), 2),
    ]  # fmt: skip
    assert [window.start for window in lacking] == [at(11)]
    with pytest.raises(NoChampion, match="trips: no promotion is effective at 2024-03-11"):
        raise next(iter(lacking.values()))


def test_decisions_keep_their_order_where_the_clock_goes_back(world):
    lake, use_case = world
    record(lake, use_case, promotion(1, 5, decided=1), COMMIT)
    record(lake, use_case, promotion(2, 5, decided=3), COMMIT)
    record(lake, use_case, promotion(1, 5, decided=2, decision="rolled back"), COMMIT)
    found = history(lake, use_case)
    assert [p.version for p in found] == [1, 2, 1]
    assert champion_at(found, at(6)) == 1


def test_a_version_is_decided_about_once_and_rolled_back_to_often(world):
    lake, use_case = world
    record(lake, use_case, promotion(1, 5), COMMIT)
    record(lake, use_case, promotion(1, 6, decided=2, decision="refused"), COMMIT)
    for decided in (3, 4):
        record(lake, use_case, promotion(1, 7, decided, "rolled back"), COMMIT)
    assert [p.decision for p in history(lake, use_case)] == [
        "promoted",
        "rolled back",
        "rolled back",
    ]
