"""What came back of an example, and until when each answer was its label."""

from collections.abc import Iterator
from typing import Any

import pytest

from ml_platform.settings import Settings
from ml_platform.storage import Lake
from tests.corrected_rides import OPEN, World

CUTOFFS = ("1 10", "2 00", "3 00", "18 12", "19 00")


@pytest.fixture(scope="module")
def answered(
    tmp_path_factory: pytest.TempPathFactory, catalog_settings: Settings
) -> Iterator[World]:
    """Rides of one morning; what is said of each is in the test that asks for it."""
    world = World(tmp_path_factory.mktemp("answered"), Lake(catalog_settings))
    world.declare(feedback="{}")
    names = ("once", "twice", "late", "old", "fed", "feeds", "comes", "same", "gone")
    world.land("rides1", "1 00", *((name, "1 08", "Rome", 5) for name in names))
    world.land(
        "arrivals1", "2 00", *((name, "1 08", "1 09", "Rome", 20) for name in ("fed", "feeds"))
    )
    world.land("arrivals2", "3 00", ("comes", "1 08", "2 12", "Rome", 20))
    world.give("once", "1 08", True, "1 09")
    world.give("twice", "1 08", True, "1 09")
    world.give("twice", "1 08", False, "18 12")
    world.give("late", "1 08", True, "1 09")
    world.give("late", "1 08", False, "1 10", "18 12")
    world.give("old", "1 08", True, "1 09", "18 12")
    world.give("fed", "1 08", False, "1 10", "18 12")
    world.give("feeds", "1 08", False, "2 10")
    world.give("comes", "1 08", False, "1 09")
    world.give("same", "1 08", True, "1 09")
    world.give("same", "1 08", True, "1 09", "18 12")
    world.give("gone", "1 08", True, "1 09")
    world.compute()
    # A day later the outcome of one is corrected, and another one was no ride at all.
    world.land("arrivals3", "18 12", ("feeds", "1 08", "1 09", "Rome", 5))
    world.land("rides1", "18 12", *((name, "1 08", "Rome", 5) for name in names if name != "gone"))
    world.compute()
    yield world
    world.lake.close()


def reported(world: World) -> list[dict[str, Any]]:
    """The labels by ride that each of the cutoffs knows."""
    frames = [world.frame(cutoff, 1) for cutoff in CUTOFFS]
    return [dict(frame[["ride", "label"]].to_numpy()) for frame in frames]


@pytest.fixture(scope="module")
def labels_known(answered: World) -> list[dict[str, Any]]:
    return reported(answered)


def versions(world: World, ride: str) -> list[tuple[Any, ...]]:
    found = world.versions("labels", "ride, label")
    return [[*rest] for name, *rest in found if name == ride]


@pytest.mark.parametrize(
    ("ride", "labels", "kept"),
    [
        pytest.param("once", [True] * 5, [], id="what is said once has no versions"),
        pytest.param(
            "twice",
            [True, True, True, True, False],
            [[True, "1 09", "18 12"], [False, "18 12", OPEN]],
            id="a correction counts from when it was known on",
        ),
        pytest.param(
            "late",
            [True, True, True, True, False],
            [[True, "1 09", "18 12"], [False, "18 12", OPEN]],
            id="a correction does not count before it came",
        ),
        pytest.param("old", [True] * 5, [], id="what is said first counts as declared"),
        pytest.param(
            "fed",
            [True, True, True, True, False],
            [[True, "1 09", "18 12"], [False, "18 12", OPEN]],
            id="what corrects an outcome does not count before it came",
        ),
        pytest.param(
            "feeds",
            [True, True, False, False, False],
            [[True, "1 09", "2 10"], [False, "2 10", OPEN]],
            id="an outcome that is corrected after the answer changes nothing",
        ),
        pytest.param(
            "comes",
            [False, False, True, True, True],
            [[False, "1 09", "2 12"], [True, "2 12", OPEN]],
            id="an outcome that is known later replaces the answer then",
        ),
        pytest.param("same", [True] * 5, [], id="the same said again is not a correction"),
        pytest.param(
            "gone",
            [True, True, True, True, None],
            [[True, "1 09", "18 12"]],
            id="an example that is removed had its label until then",
        ),
    ],
)
@pytest.mark.slow
def test_each_answer_is_the_label_from_when_it_counts_until_another_does(
    answered: World,
    labels_known: list[dict[str, Any]],
    ride: str,
    labels: list[Any],
    kept: list[Any],
) -> None:
    assert [known.get(ride) for known in labels_known] == labels
    assert versions(answered, ride) == kept


def test_where_revised_values_are_taken_the_last_answer_counts_as_declared(
    answered: World,
) -> None:
    answered.declare("as_revised", feedback="{}")
    try:
        found = reported(answered)
        assert [known.get("late") for known in found] == [None, False, False, False, False]
        assert not [known for known in found if "gone" in known]
    finally:
        answered.declare(feedback="{}")
