"""Frames of somebody's own, joined with what was known of features when their rows happened."""

import pandas as pd
import pytest

from ml_platform.errors import ExampleRefused, FeatureError, TableNotFound
from ml_platform.features import join_spine
from ml_platform.storage import Lake
from tests.corrected_rides import World, a_few_rides, at

RIDES = ["a", "b", "c", "d"]
BEGAN = [at("1 08"), at("1 10"), at("2 08"), at("2 12")]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, shared_lake: Lake) -> World:
    """Rides of two days in Rome; on the 18th two of their arrivals are corrected."""
    world = World(tmp_path_factory.mktemp("rides"), shared_lake)
    a_few_rides(world)
    world.compute()
    world.land(
        "arrivals2", "18 12", ("a", "1 08", "1 09", "Rome", 2), ("b", "1 10", "1 11", "X", 9)
    )
    world.compute()
    return world


@pytest.fixture
def spine() -> pd.DataFrame:
    return pd.DataFrame({"city": "Rome", "event_time": BEGAN}, index=RIDES)


def delays(frame: pd.DataFrame) -> list[float | None]:
    values = frame["city__delays"]
    return values.astype(object).where(values.notna(), None).tolist()


def test_rows_of_the_source_are_joined_as_examples_are(world: World) -> None:
    rides = pd.DataFrame({"ride": RIDES, "began": BEGAN, "city": "Rome", "distance": [5, 6, 7, 8]})
    found = join_spine(world.lake, world.use_case, rides)
    columns = list(world.use_case.model_columns)
    pd.testing.assert_frame_equal(found[columns], world.frame()[columns])
    assert list(found) == ["ride", "began", *columns]


def test_keys_and_event_times_are_enough_and_other_columns_stay(
    world: World, spine: pd.DataFrame
) -> None:
    found = join_spine(world.lake, world.use_case, spine.assign(note=[1, 2, 3, 4]))
    assert list(found) == ["city", "event_time", "note", "city__delays"]
    assert delays(found) == [None, 20, 1, 30]
    assert found["note"].tolist() == [1, 2, 3, 4]


def test_rows_stay_in_their_order_also_where_they_are_there_twice(
    world: World, spine: pd.DataFrame
) -> None:
    shuffled = spine.loc[["d", "b", "b", "c", "a"]]
    found = join_spine(world.lake, world.use_case, shuffled)
    assert found.index.tolist() == ["d", "b", "b", "c", "a"]
    assert delays(found) == [30, 20, 20, 1, None]


@pytest.mark.parametrize(
    ("moment", "known"),
    [
        ("1 08:30", [None, None, None, None]),
        # Of the first arrival alone; for the last ride it is older than the time to live.
        ("1 10", [None, 20, 20, None]),
        ("2 08", [None, 20, 1, None]),
        ("18 11", [None, 20, 1, 30]),
        # The second arrival was of another city, as is known by now.
        ("18 12", [None, 2, 2, 30]),
    ],
)
def test_what_was_known_at_a_moment_is_joined_where_one_is_given(
    world: World, spine: pd.DataFrame, moment: str, known: list[float | None]
) -> None:
    assert delays(join_spine(world.lake, world.use_case, spine, at=at(moment))) == known


def test_a_training_frame_is_joined_again_to_itself(world: World) -> None:
    frame = world.frame()
    pd.testing.assert_frame_equal(join_spine(world.lake, world.use_case, frame), frame)


def test_a_key_without_a_value_and_one_that_is_unknown_have_no_features(world: World) -> None:
    spine = pd.DataFrame({"city": [None, "Oslo"], "event_time": at("2 12")})
    assert delays(join_spine(world.lake, world.use_case, spine)) == [None, None]
    nobody = spine.assign(city=None)
    assert delays(join_spine(world.lake, world.use_case, nobody)) == [None, None]


def test_no_rows_have_the_columns_that_rows_would_have(world: World, spine: pd.DataFrame) -> None:
    found = join_spine(world.lake, world.use_case, spine.head(0))
    assert list(found) == ["city", "event_time", "city__delays"]
    assert found.dtypes["city__delays"] == "float64"
    assert len(found) == 0


def test_times_without_a_zone_are_in_that_of_the_use_case(
    world: World, spine: pd.DataFrame
) -> None:
    naive = spine.assign(event_time=spine["event_time"].dt.tz_localize(None))
    elsewhere = spine.assign(event_time=spine["event_time"].dt.tz_convert("Asia/Tokyo"))
    for each in (naive, elsewhere, spine.assign(event_time=naive["event_time"].astype(str))):
        assert delays(join_spine(world.lake, world.use_case, each)) == [None, 20, 1, 30]


def test_revised_values_are_never_those_of_a_moment(world: World, spine: pd.DataFrame) -> None:
    revised = world.use_case.model_copy(update={"values": "as_revised"})
    assert delays(join_spine(world.lake, revised, spine)) == [None, 2, 2, 30]
    with pytest.raises(FeatureError, match=r"values: as_revised.* leave out `at`"):
        join_spine(world.lake, revised, spine, at=at("18 12"))


def test_only_the_views_that_are_named_are_joined(world: World, spine: pd.DataFrame) -> None:
    assert list(join_spine(world.lake, world.use_case, spine, views=[])) == ["city", "event_time"]
    with pytest.raises(FeatureError, match=r"no feature view 'citi'\. Did you mean 'city'\?"):
        join_spine(world.lake, world.use_case, spine, views=["citi"])


def test_a_view_that_was_never_computed_is_named(lake: Lake, world: World) -> None:
    spine = pd.DataFrame({"city": ["Rome"], "event_time": [at("1 08")]})
    with pytest.raises(TableNotFound, match="materialise rides/city_features first"):
        join_spine(lake, world.use_case, spine)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ([1], "a spine is a pandas DataFrame with event_time, city, not a list"),
        (pd.DataFrame({"town": ["Rome"]}), r"lacks event_time, city; .* \(city by city\)"),
        (pd.DataFrame({"citi": [1], "event_time": [1]}), r"lacks city; .* Did you mean 'citi'\?"),
        (pd.DataFrame([[1, 1]], columns=["city", "city"]), "two columns called 'city'"),
    ],
)
def test_what_is_no_spine_is_refused_in_a_sentence(
    world: World, given: pd.DataFrame, problem: str
) -> None:
    with pytest.raises(FeatureError, match=problem):
        join_spine(world.lake, world.use_case, given)


@pytest.mark.parametrize(
    ("value", "problem"),
    [("noon", "event_time: 'noon' is not TIMESTAMP"), (None, "event_time: is missing")],
)
def test_a_value_that_is_no_time_is_refused_by_the_name_that_it_was_given(
    world: World, spine: pd.DataFrame, value: str | None, problem: str
) -> None:
    with pytest.raises(ExampleRefused, match=problem):
        join_spine(world.lake, world.use_case, spine.assign(event_time=value))
