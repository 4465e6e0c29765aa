"""Numbers that callers send: taken exactly as they are, or refused by column."""

import math
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ml_platform.errors import RequestRefused
from ml_platform.registry import ModelVersion, SeenColumn
from ml_platform.serving.inputs import LARGEST_EXACT, check_columns

COLUMNS = ("a", "b", "c")
MOMENT = datetime(2024, 3, 1, tzinfo=UTC)
MODEL = ModelVersion(
    use_case="trips", version=1, run_id="", cutoff=MOMENT, snapshot=1, estimator=None, digest="",
    metrics={}, reference=pd.DataFrame(), classes=(), columns=dict.fromkeys(COLUMNS, "DOUBLE"),
    trained_from=MOMENT, trained_until=MOMENT, seen=dict.fromkeys(COLUMNS, SeenColumn(True)),
)  # fmt: skip
VALUE = (
    st.floats()
    | st.integers(-(LARGEST_EXACT + 2), LARGEST_EXACT + 2)
    | st.sampled_from([LARGEST_EXACT, LARGEST_EXACT + 1, -LARGEST_EXACT - 1, 10**400, None, True])
)


def is_taken(value: Any) -> bool:
    if isinstance(value, int):
        return abs(value) <= LARGEST_EXACT
    return value is None or not math.isinf(value)


@given(st.integers(1, 3).flatmap(
    lambda rows: st.fixed_dictionaries(
        {name: st.lists(VALUE, min_size=rows, max_size=rows) for name in COLUMNS}
    )
))  # fmt: skip
@example({"a": [LARGEST_EXACT + 1], "b": [1.0], "c": [2]})
@example({"a": [1], "b": [10**400], "c": [None]})
def test_numbers_are_taken_exactly_or_refused_by_column(columns: dict[str, list[Any]]) -> None:
    wrong = [name for name in COLUMNS if not all(map(is_taken, columns[name]))]
    if wrong:
        with pytest.raises(RequestRefused) as refused:
            check_columns(MODEL, columns)
        assert refused.value.column == wrong[0]
        return
    found = check_columns(MODEL, columns).columns
    for name, values in columns.items():
        expected = [math.nan if value is None else float(value) for value in values]
        np.testing.assert_array_equal(found[name], expected)
        assert found[name].dtype == np.float64
