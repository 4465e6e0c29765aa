"""Pipelines that a use case publishes: what may be declared, and what a caller may give."""

import posixpath
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.errors import ParameterNotAllowed, SpecErrors
from ml_platform.serving.control.given import RunParameters, read_given
from ml_platform.serving.control.parameter_schema import schema_of
from ml_platform.sources.locations import check_location
from ml_platform.spec.loading import load_use_case
from ml_platform.spec.locations import files_at, is_below, location
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.windows import Window
from tests.trips_use_case import at, write_folder

NOW = datetime(2024, 3, 20, 12, tzinfo=UTC)
DECLARED = """\
pipelines:
  monthly:
    run: train
    parameters:
      window: {least: 10d, most: 40d, default: 15d}
      sample: {least: 0.2, description: Less is faster.}
      sample_rows: {most: 1000}
  archive:
    run: backfill
    ingest: true
    parameters:
      locations: {trips: [archive/, "az://lake/trips", /mnt/trips]}
      partitions: {most: 7}
"""


def declare(root: Path, text: str) -> UseCase:
    write_folder(root, "binary")
    spec = root / "trips" / "use_case.yaml"
    spec.write_text(spec.read_text() + text)
    return load_use_case(root / "trips")


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> UseCase:
    return declare(tmp_path_factory.mktemp("declared"), DECLARED)


def give(case: UseCase, name: str, **parameters: Any) -> RunParameters:
    def newest(use_case: UseCase, now: datetime) -> Window:
        return use_case.calendar.window_at(now)

    return read_given(case, case.published_pipelines[name], parameters, NOW, newest)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("run: train\n    parameters: {partitions: {most: 3}}", "none of `run: train`"),
        ("run: score\n    parameters: {window: {}}", "none of `run: score`"),
        ("run: train\n    ingest: true", "a training has a cutoff"),
        ("run: train\n    parameters: {window: {least: 5d}}", "no longer than the holdout of '5d'"),
        ("run: train\n    parameters: {window: {least: 9d, most: 8d}}", "`least` is more than"),
        ("run: train\n    parameters: {sample: {default: 1.5}}", "should be at most 1"),
        ("run: train\n    parameters: {sample_rows: {least: 5, default: 2}}", "`default` is not"),
        ("run: backfill\n    parameters: {locations: {trip: [a]}}", "Did you mean 'trips'?"),
        ("run: backfill\n    parameters: {locations: {trips: [../a]}}", "leads out of the folder"),
        ("run: backfill\n    parameters: {locations: {trips: []}}", "should not be empty"),
        ("run: dance", "should be one of train, score, backfill"),
    ],
)
def test_what_nothing_can_be_done_with_is_a_mistake_with_its_place(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(SpecErrors) as caught:
        declare(tmp_path, f"pipelines:\n  odd:\n    {text}\n")
    assert said in str(caught.value)
    assert "use_case.yaml:" in str(caught.value)


def test_what_others_may_start_is_no_part_of_the_code_version(
    case: UseCase, tmp_path: Path
) -> None:
    assert case.code_version == write_folder(tmp_path, "binary").code_version


def test_every_use_case_has_the_three_pipelines_and_its_own(case: UseCase) -> None:
    assert list(case.published_pipelines) == ["train", "score", "backfill", "monthly", "archive"]


def test_defaults_stand_with_what_was_asked(case: UseCase) -> None:
    found = give(case, "monthly", sample=0.5)
    assert found.asked == {"cutoff": "2024-03-20", "window": "15d", "sample": 0.5}
    assert give(case, "train").asked == {"cutoff": "2024-03-20"}
    assert give(case, "score").asked == {"from": "2024-03-19", "to": "2024-03-19"}
    assert give(case, "score", to="2024-03-07").asked == {"from": "2024-03-07", "to": "2024-03-07"}
    assert give(case, "score", **{"from": "2024-03-05", "to": "2024-03-07"}).range == Window(
        at(5), at(8)
    )


@pytest.mark.parametrize(
    ("pipeline", "parameters", "field", "said"),
    [
        ("monthly", {"windw": "15d"}, "windw", "Did you mean 'window'?"),
        ("monthly", {"window": "9d"}, "window", "'9d' should be '10d' at least"),
        ("monthly", {"window": "2mo"}, "window", "'2mo' should be '40d' at most"),
        ("monthly", {"window": 15}, "window", "a length of time in quotes"),
        ("monthly", {"window": "15 parsecs"}, "window", "is not a valid duration"),
        ("monthly", {"sample": 0.1}, "sample", "between 0.2 and 1"),
        ("monthly", {"sample": True}, "sample", "a share of the rows"),
        ("monthly", {"sample": float("nan")}, "sample", "between"),
        ("monthly", {"sample_rows": 1001}, "sample_rows", "1000 at most"),
        ("monthly", {"sample_rows": 0.5}, "sample_rows", "a number of rows"),
        ("monthly", {"cutoff": "2024-03-21"}, "cutoff", "has not begun"),
        ("monthly", {"cutoff": "2024-3-1"}, "cutoff", "is not a daily partition"),
        ("monthly", {"cutoff": ["2024-03-01"]}, "cutoff", "by its key in quotes"),
        ("train", {"window": "15d"}, "window", "not declared of this pipeline. There is: cutoff"),
        ("archive", {"from": "2024-03-09", "to": "2024-03-02"}, "from", "comes after"),
        ("archive", {"from": "2024-03-01", "to": "2024-03-08"}, "to", "8 partitions, and may"),
        ("archive", {"to": "2024-03-20"}, "to", "is not over"),
        ("archive", {"locations": "archive"}, "locations", "folders by source"),
        ("archive", {"locations": {"trip": "archive"}}, "locations.trip", "Did you mean 'trips'?"),
        ("archive", {"locations": {"trips": 5}}, "locations.trips", "a folder or a URL"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_is(
    case: UseCase, pipeline: str, parameters: dict[str, Any], field: str, said: str
) -> None:
    with pytest.raises(ParameterNotAllowed) as caught:
        give(case, pipeline, **parameters)
    assert caught.value.field == f"parameters.{field}"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "folder",
    [
        "archive2", "archives/x", "archive/../secret", "archive/./x", "/etc", "/mnt/trips/../x",
        "/mnt", "az://lake/trips2", "az://lake", "az://other/trips", "s3://lake/trips",
        "AZ://lake/trips", "file:///mnt/trips", "archive/*", "archive/[a]",
        "archive/a\nb", "archive/a\x00", "archive\\..\\x", "archive/%2e%2e/x", "archive/a?b",
        "archive/'; DROP", "", "/", "..", "archive/" + "x" * 1000,
    ],
)  # fmt: skip
def test_a_location_that_is_not_below_a_declared_one_is_refused(case: UseCase, folder: str) -> None:
    with pytest.raises(ParameterNotAllowed):
        give(case, "archive", locations={"trips": folder})


@pytest.mark.parametrize(
    ("folder", "taken"),
    [
        ("archive", "archive"),
        ("archive//2024/", "archive/2024"),
        ("az:///lake/trips", "az://lake/trips"),
        ("az://lake/trips/day=1/", "az://lake/trips/day=1"),
        ("/mnt/trips/a b", "/mnt/trips/a b"),
    ],
)
def test_a_location_below_a_declared_one_is_taken(case: UseCase, folder: str, taken: str) -> None:
    found = give(case, "archive", locations={"trips": folder})
    assert (found.asked["locations"], found.locations) == ({"trips": taken}, ("trips",))


@given(
    st.lists(st.sampled_from(["archive", "..", ".", "/", "//", "a", "az:", "%2e", "\\", "é", ""]))
)
def test_whatever_is_written_a_location_is_below_a_declared_one(parts: list[str]) -> None:
    try:
        found = check_location("".join(parts), ["archive", "az://lake/trips"])
    except ValueError:
        return
    assert found == "archive" or found.startswith("archive/")
    assert posixpath.normpath(found) == found


def test_only_files_of_the_declared_pattern_are_looked_for_elsewhere() -> None:
    assert files_at("*.csv", "archive/2024") == "archive/2024/*.csv"
    assert files_at("az://a/day=*/x.parquet", "az://b/c") == "az://b/c/day=*/x.parquet"
    assert not is_below(location("archive/2024x"), location("archive/2024"))


def test_the_schema_says_what_may_be_given(case: UseCase) -> None:
    monthly = schema_of(case, case.published_pipelines["monthly"])
    assert monthly["additionalProperties"] is False
    assert monthly["properties"].keys() == {"cutoff", "window", "sample", "sample_rows"}
    assert monthly["properties"]["sample"]["minimum"] == 0.2
    assert monthly["properties"]["sample"]["description"] == "Less is faster."
    assert monthly["properties"]["window"]["default"] == "15d"
    archive = schema_of(case, case.published_pipelines["archive"])
    assert archive["properties"].keys() == {"from", "to", "locations"}
    assert archive["properties"]["locations"]["properties"].keys() == {"trips"}
