"""How reports went over a year: the figures, and a picture that Dagster shows in its place."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest

from ml_platform.monitoring import Trend, describe_trend, drift_trend, performance_trend
from ml_platform.monitoring.trend import MOST_POINTS
from ml_platform.spec.use_case import UseCase
from ml_platform.spec.watching import Drift, Monitoring, Performance
from ml_platform.storage import Lake
from tests import trips_use_case as trips
from tests.test_alerts_conditions import report_drift, report_performance


@pytest.fixture
def use_case(tmp_path: Path) -> UseCase:
    monitoring = Monitoring(drift=Drift(share=0.5), performance=Performance(min=0.7))
    return trips.write_folder(tmp_path, "binary").model_copy(update={"monitoring": monitoring})


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    lake = Lake(trips.settings(tmp_path))
    yield lake
    lake.close()


def svg_of(text: str) -> ElementTree.Element:
    found = re.match(r"!\[[^\]]*\]\(<data:image/svg\+xml,([^>]*)>\)", text)
    assert found, text
    return ElementTree.fromstring(unquote(found[1]))


def heights(svg: ElementTree.Element) -> list[int]:
    """Of the points of the line, in pixels from the top."""
    (line,) = [p for p in svg if p.get("stroke") == "royalblue"]
    numbers = [int(n) for n in re.findall(r"-?\d+", line.get("d", ""))]
    found = [numbers[1]]
    for move in numbers[3::2]:
        found.append(found[-1] + move)
    return found


def test_there_is_none_without_reports(lake: Lake, use_case: UseCase) -> None:
    assert drift_trend(lake, use_case) is None
    assert performance_trend(lake, use_case) is None


def test_drift_is_the_share_of_drifted_columns(lake: Lake, use_case: UseCase) -> None:
    report_drift(lake, use_case, 7, [0.1, 0.1, 0.2, 0.1])
    report_drift(lake, use_case, 9, [0.1, 0.4, 0.5, 0.6])
    assert drift_trend(lake, use_case) == Trend(
        "share of columns drifted", "2024-03-07", "2024-03-09", (0.0, 0.75), (0.5,)
    )


def test_performance_is_the_metric_with_its_bounds(lake: Lake, use_case: UseCase) -> None:
    for day, value in ((5, 0.8), (6, 0.65), (7, 0.9)):
        report_performance(lake, use_case, day, value)
    assert performance_trend(lake, use_case) == Trend(
        "roc_auc", "2024-03-05", "2024-03-07", (0.8, 0.65, 0.9), (0.7,)
    )


def test_the_line_is_drawn_to_scale_with_its_limit() -> None:
    text = describe_trend(Trend("roc_auc", "a", "c", (0.6, 0.8, 0.7), (0.65,)), 1000)
    svg = svg_of(text)
    assert heights(svg) == [102, 12, 57]
    (limit,) = [p.get("d") for p in svg if p.get("stroke") == "red"]
    assert limit == "M0 79h440"
    assert [t.text for t in svg.iter() if t.tag.endswith("text")] == ["0.8", "0.6"]
    assert text.endswith("\n\nroc_auc, 3 partitions from a to c; the red line is the limit, 0.65")


@pytest.mark.parametrize("count", [2, 100, MOST_POINTS + 1, 366, 8784])
def test_any_number_of_partitions_fits(count: int) -> None:
    # As wild as it can be: each move is over the whole height.
    values = tuple(float(number % 2) for number in range(count))
    text = describe_trend(Trend("share of columns drifted", "a", "b", values, (0.3,)), 1000)
    assert len(text) < 1000
    points = len(heights(svg_of(text)))
    assert points == count if count == 2 else 50 <= points <= MOST_POINTS
    assert ("each point the mean of" in text) == (points < count)


def test_values_that_never_change_are_a_line() -> None:
    assert heights(svg_of(describe_trend(Trend("mae", "a", "b", (5.0, 5.0)), 1000))) == [12, 12]


def test_one_report_is_no_trend() -> None:
    assert describe_trend(Trend("mae", "a", "a", (5.0,)), 1000) == ""
