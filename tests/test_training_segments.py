"""How reliable a model is by segment: which segments, and that the picture is drawn of them."""

import numpy as np
import pandas as pd
import pytest

from ml_platform.spec.modelling import Gate
from ml_platform.spec.watching import Monitoring, Segments
from ml_platform.training.plots import draw, draw_reliability
from ml_platform.training.segments import segments_of
from tests.trips_use_case import write_folder


@pytest.fixture
def use_case(tmp_path):
    return write_folder(tmp_path, "binary").model_copy(
        update={
            "gate": Gate(segments=("city",), segment_tolerance=0.1, segment_min_rows=3),
            "monitoring": Monitoring(segments=Segments(columns=("distance",))),
        }
    )


def rows(cities, distances):
    return pd.DataFrame({"city": cities, "distance": distances})


def test_segments_of_gate_and_monitoring_are_those_with_enough_rows(use_case):
    found = segments_of(use_case, rows(["A", "B", "A", None, "A"], [1.0, 2.5, 2.5, 2.5, 7.0]))
    assert {name: places.tolist() for name, places in found.items()} == {
        "city=A": [0, 2, 4], "distance=2.5": [1, 2, 3],
    }  # fmt: skip
    missing = segments_of(use_case, rows([None] * 3, [1.0, 2.0, 3.0]))
    assert list(missing) == ["city=(none)"]


@pytest.mark.parametrize(
    ("task", "name", "label"),
    [("binary", "probability", [0, 1, 1, 0]), ("regression", "predicted", [3.0, 4.0, 5.0, 6.0])],
)
def test_the_picture_is_drawn_where_there_are_segments(task, name, label):
    prediction = pd.DataFrame({name: [0.2, 0.7, 0.8, 0.4]})
    places = {"city=A": np.array([0, 1]), "city=B": np.array([2, 3])}
    arguments = task, np.array(label), prediction, {"city": 0.1}
    assert "reliability_by_segment" not in draw(*arguments, {})
    assert draw(*arguments, places)["reliability_by_segment"].startswith(b"\x89PNG")


def test_the_farthest_off_stand_last_and_no_more_than_fit():
    off = {f"city={i}": (i / 100, 0.01) for i in range(40)}
    shown = [text.get_text() for text in draw_reliability("binary", off).axes.get_yticklabels()]
    assert shown == [f"city={i}" for i in range(20, 40)]
