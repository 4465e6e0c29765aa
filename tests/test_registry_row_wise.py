import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from ml_platform.registry import is_row_wise

CITIES = np.array(["Albany", "Boston", None], dtype=object)
ROWS = 3_000


def frame(seed):
    random = np.random.default_rng(seed)
    numbers = random.normal(size=(ROWS, 5))
    numbers[random.random(size=numbers.shape) < 0.1] = np.nan
    made = pd.DataFrame(numbers, columns=[f"x{i}" for i in range(5)])
    return made.assign(city=CITIES[random.integers(0, 3, ROWS)])


FITTED, SERVED = frame(0), frame(1)
LATE = (FITTED["x0"].fillna(0) + FITTED["x1"].fillna(0) > 0).to_numpy()
ENCODER = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan)


class Subclass(HistGradientBoostingClassifier):
    pass


def encoded(last, encoder=ENCODER):
    numbers = ("passthrough", make_column_selector(dtype_include="number"))
    return make_pipeline(make_column_transformer((encoder, ["city"]), numbers), last)


ROW_WISE = [
    encoded(HistGradientBoostingClassifier(max_iter=30)).fit(FITTED, LATE),
    encoded(HistGradientBoostingRegressor(max_iter=30)).fit(FITTED, LATE.astype(float)),
    encoded(
        HistGradientBoostingClassifier(max_iter=30), OneHotEncoder(sparse_output=False)
    ).fit(FITTED, LATE),
]  # fmt: skip


@pytest.mark.parametrize("estimator", ROW_WISE)
@pytest.mark.parametrize(
    "size", [7, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3, 64, 1000))]
)
def test_a_row_gets_the_same_bits_whatever_rows_come_along(estimator, size):
    assert is_row_wise(estimator)
    method = getattr(estimator, "predict_proba", None) or estimator.predict
    together = np.asarray(method(SERVED))
    alone = [method(SERVED.iloc[i : i + size]) for i in range(0, 300 * size, size) if i < ROWS]
    parts = np.concatenate(alone)
    assert parts.tobytes() == together[: len(parts)].tobytes()


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(FunctionTransformer(np.nan_to_num), LogisticRegression()),
        make_pipeline(FunctionTransformer(np.nan_to_num), HistGradientBoostingClassifier()),
        Subclass(max_iter=3),
        HistGradientBoostingRegressor(loss="poisson", max_iter=3),
    ],
)
def test_what_is_not_known_to_predict_by_row_is_not_taken_to(estimator):
    numbers = FITTED.drop(columns="city")
    assert not is_row_wise(estimator.fit(numbers, LATE.astype(int)))


def test_a_softmax_is_not_taken_to_be_by_row():
    classes = np.arange(ROWS) % 3
    model = HistGradientBoostingClassifier(max_iter=3).fit(FITTED.drop(columns="city"), classes)
    assert not is_row_wise(model)
