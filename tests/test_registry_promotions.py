"""Which version serves from when on, and how decisions about it are kept."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import InputsChanged, ModelNotFound, NoChampion
from ml_platform.registry import (
    NOT_JUDGED,
    Promotion,
    champion_at,
    champion_if_any,
    champions_of,
    decided_with,
    history,
    latest_decision,
    newest_undecided,
    record,
)
from ml_platform.registry.promotions import promotions_table
from ml_platform.storage import Basis, Commit, Lake, Read, Table
from tests.trips_use_case import COMMIT, at, days, settings, write_folder


def promotion(version, day, decided=1, decision="promoted"):
    return Promotion(version, at(day), at(1) + timedelta(hours=decided), "ada", decision, "why")


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    root = tmp_path_factory.mktemp("promotions")
    lake = Lake(settings(root))
    yield lake, write_folder(root, "binary")
    lake.close()


@pytest.fixture
def world(shared):
    # Attaching a lake costs more than most of these tests, emptying it does not.
    yield shared
    with shared[0].cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS lake.trips CASCADE")


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


def decided(world, *decisions, version=2, **options):
    """Whether each of some decisions about one version was appended."""
    lake, use_case = world
    rows = [promotion(version, 5, hour, each) for hour, each in enumerate(decisions)]
    return [record(lake, use_case, row, COMMIT, **options) for row in rows]


@pytest.mark.parametrize(
    ("decisions", "appended"),
    [
        (["waiting", "promoted", "refused"], [True, True, False]),
        (["waiting", "refused", "promoted"], [True, True, False]),
        (["waiting", "waiting", "promoted"], [True, False, True]),
        (["refused", "promoted", "waiting"], [True, False, False]),
        (["promoted", "promoted", "rolled back"], [True, False, True]),
        (["rolled back", "promoted", "rolled back"], [True, True, True]),
        (["waiting", "rolled back", "promoted"], [True, True, True]),
    ],
)
def test_of_two_answers_to_what_waits_the_second_is_not_recorded(world, decisions, appended):
    assert decided(world, *decisions) == appended
    stored = [p.decision for p in history(*world)]
    assert stored == [each for each, kept in zip(decisions, appended, strict=True) if kept]


def test_decisions_about_other_versions_are_no_answers(world):
    assert decided(world, "waiting", version=1) == [True]
    assert decided(world, "promoted", version=2) == [True]
    assert decided(world, "refused", version=1) == [True]


def test_a_decision_that_does_not_know_of_all_before_it_is_not_recorded(world):
    lake, use_case = world
    first, second, third = (promotion(number, 5, number) for number in (1, 2, 3))
    assert record(lake, use_case, first, COMMIT, seen=0)
    assert not record(lake, use_case, second, COMMIT, seen=0)
    assert record(lake, use_case, second, COMMIT, seen=1)
    assert record(lake, use_case, third, COMMIT, seen=7)
    assert [p.version for p in history(lake, use_case)] == [1, 2, 3]


def test_a_decision_that_rests_on_what_has_changed_is_not_recorded(world):
    lake, use_case = world
    decided(world, "waiting")
    with lake.cursor() as cursor:
        now = Basis(lake, "trips", lake.snapshot(cursor), (Read("promotions"),))
    assert record(lake, use_case, promotion(3, 5), COMMIT, basis=now)
    with pytest.raises(InputsChanged, match=r"trips\.promotions was changed after snapshot"):
        record(lake, use_case, promotion(4, 5), COMMIT, basis=now)
    assert [p.version for p in history(lake, use_case)] == [2, 3]


def test_a_decision_is_stored_a_microsecond_after_all_before_it_at_the_earliest(world):
    lake, use_case = world
    for version, hour in ((1, 3), (2, 3), (3, 1), (4, 9)):
        record(lake, use_case, promotion(version, 5, hour), COMMIT)
    third, last = (at(1) + timedelta(hours=hour) for hour in (3, 9))
    microsecond = timedelta(microseconds=1)
    assert [(p.version, p.decided_at) for p in history(lake, use_case)] == [
        (1, third), (2, third + microsecond), (3, third + 2 * microsecond), (4, last),
    ]  # fmt: skip


def test_columns_that_a_version_was_trained_without_are_kept_with_its_figures(world):
    lake, use_case = world
    one = replace(
        promotion(1, 5), left_out=("gauge", "city"), too_good="r2 1", figures={"b": 2.0, "a": 1.0}
    )
    record(lake, use_case, one, COMMIT)
    (found,) = history(lake, use_case)
    assert (found, list(found.figures)) == (one, ["b", "a"])
    assert (found.decided_by, found.reason, found.decided_at.tzinfo) == ("ada", "why", UTC)


def test_a_decision_carries_the_commit_and_is_found_by_what_that_says(world):
    lake, use_case = world

    def said(key):
        return Commit("run-3", "c0de", "decide", {"order": key})

    assert decided_with(lake, use_case, "order", "first") is None
    for version in (1, 2, 3):
        record(lake, use_case, promotion(version, 5, version), said(f"order {version}"))
    assert [decided_with(lake, use_case, "order", f"order {n}") for n in (1, 2, 3)] == [1, 2, 3]
    assert decided_with(lake, use_case, "order", "order 4") is None
    assert decided_with(lake, use_case, "other", "order 3") is None
    with lake.cursor() as cursor:
        columns = cursor.execute("DESCRIBE lake.trips.promotions").fetchall()
        message, author = cursor.execute(
            "SELECT commit_message, author FROM lake.snapshots() ORDER BY snapshot_id DESC LIMIT 1"
        ).fetchone()
    assert (message, author) == ("decide", "run run-3, code c0de")
    assert [name for name, *_ in columns] == list(promotions_table(use_case).columns)


def test_decisions_are_stored_under_these_names_and_types(shared):
    assert promotions_table(shared[1]) == Table(
        "trips", "promotions",
        {
            "version": "INTEGER", "effective_from": "TIMESTAMPTZ", "decided_at": "TIMESTAMPTZ",
            "decided_by": "VARCHAR", "decision": "VARCHAR", "reason": "VARCHAR",
            "figures": "MAP(VARCHAR, DOUBLE)", "left_out": "VARCHAR[]",
            "too_good": "VARCHAR",
        },
        order=("decided_at", "version"),
    )  # fmt: skip


def test_a_decision_that_was_not_recorded_is_not_found(world):
    lake, use_case = world
    said = Commit("run", "code", extra={"order": "late"})
    # The table is made, and then more decisions are found than this one knows of.
    assert not record(lake, use_case, promotion(1, 5), said, seen=-1)
    assert history(lake, use_case) == []
    assert decided_with(lake, use_case, "order", "late") is None


def test_what_was_said_before_there_were_decisions_names_none(world):
    lake, use_case = world
    said = Commit("run", "code", extra={"order": "early"})
    with lake.cursor() as cursor:
        lake.transact(cursor, said, lambda t: t.execute("CREATE SCHEMA lake.trips"))
    assert decided_with(lake, use_case, "order", "early") is None
    decided(world, "promoted")
    assert decided_with(lake, use_case, "order", "early") is None


def test_the_newest_version_without_a_decision_is_the_one_to_decide_about(shared):
    _, use_case = shared
    asked = []
    registry = SimpleNamespace(versions=lambda case: asked.append(case) or [1, 2, 3, 4])
    assert newest_undecided(registry, use_case, []) == 4
    assert newest_undecided(registry, use_case, [promotion(4, 5), promotion(1, 5)]) == 3
    assert asked == [use_case, use_case]
    with pytest.raises(ModelNotFound) as failure:
        newest_undecided(registry, use_case, [promotion(n, 5) for n in (1, 2, 3, 4)])
    assert str(failure.value) == (
        "trips has no version that nothing was decided about; `ml-platform train trips "
        "--cutoff …` makes one"
    )


def test_the_latest_decision_about_a_version_leaves_rollbacks_to_it_aside():
    waits, passed, again = (
        promotion(1, 5, 1, "waiting"),
        promotion(1, 5, 2),
        promotion(1, 9, 4, "rolled back"),
    )
    other = promotion(2, 6, 3, "refused")
    assert latest_decision([waits, other], 1) is waits
    assert latest_decision([waits, passed, other, again], 1) is passed
    assert latest_decision([again, other], 1) is None
    assert latest_decision([], 1) is None


@pytest.mark.parametrize(
    ("decision", "reason", "outcome", "serves"),
    [
        ("promoted", "better", "promoted", True),
        ("promoted", f"{NOT_JUDGED}by ada", "promoted", True),
        ("rolled back", "bad", "rolled back", True),
        ("waiting", "better", "waiting", False),
        ("refused", "worse", "refused", False),
        ("refused", f"worse, and then {NOT_JUDGED}", "refused", False),
        ("refused", f"{NOT_JUDGED}9 rows", "not judged", False),
    ],
)
def test_what_became_of_a_version_in_words(decision, reason, outcome, serves):
    found = replace(promotion(1, 5, decision=decision), reason=reason)
    assert (found.outcome, found.serves) == (outcome, serves)
    assert found.is_unjudged is (outcome == "not judged")


def test_a_version_that_waits_does_not_serve():
    assert champion_if_any([promotion(1, 5, decision="waiting")], at(9)) is None


def test_a_moment_before_the_first_promotion_is_named_with_what_to_do():
    with pytest.raises(NoChampion) as failure:
        champion_at([promotion(1, 5)], at(4, 23))
    assert str(failure.value) == (
        "no promotion is effective at 2024-03-04T23:00:00-05:00; train a model with a cutoff at "
        "or before it and have it promoted"
    )


def test_of_decisions_of_one_moment_the_last_in_the_history_counts():
    decisions = [promotion(version, 5, decided=2) for version in (3, 1, 2)]
    assert champion_at(decisions, at(5)) == 2


def test_a_rollback_ends_what_is_effective_from_the_same_moment_and_what_was_decided_before():
    later, same, rollback = (
        promotion(3, 9, decided=1),
        promotion(2, 8, decided=2),
        promotion(1, 8, decided=3, decision="rolled back"),
    )
    assert champion_at([later, same, rollback], at(10)) == 1
    # Decided in the same instant, it is not one that was decided before.
    assert champion_at([promotion(3, 9, decided=3), rollback], at(10)) == 3
    # A rollback ends a rollback too.
    earlier = promotion(4, 7, decided=4, decision="rolled back")
    assert champion_at([later, same, rollback, earlier], at(10)) == 4
    # What is refused ends nothing.
    refused = promotion(4, 7, decided=4, decision="refused")
    assert champion_at([later, refused], at(10)) == 3


def test_which_version_serves_where_clocks_show_a_time_twice():
    zone = at(1).tzinfo
    first, second = (datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=fold) for fold in (0, 1))
    before = Promotion(1, at(1), at(1), "ada", "promoted", "")
    later = Promotion(2, second, at(2), "ada", "promoted", "")
    assert champion_at([before, later], first) == 1
    assert champion_at([before, later], second) == 2
    earlier = Promotion(3, first, at(3), "ada", "promoted", "")
    assert champion_at([before, later, earlier], second) == 2


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 28)), min_size=1))
def test_without_rollbacks_the_latest_effective_promotion_serves_whatever_the_order(made):
    decisions = [promotion(version, day, hour) for hour, (version, day) in enumerate(made)]
    for day in range(1, 29):
        effective = [(start, hour, v) for hour, (v, start) in enumerate(made) if start <= day]
        expected = max(effective)[-1] if effective else None
        assert champion_if_any(decisions, at(day)) == expected
        assert champion_if_any(decisions[::-1], at(day)) == expected
