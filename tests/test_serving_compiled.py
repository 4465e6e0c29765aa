"""Few rows predicted by what was compiled from an estimator: the same bits, or not at all."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
)
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ml_platform.errors import FeatureError, ModelRefused
from ml_platform.registry import ModelVersion, predict, predict_columns
from ml_platform.serving.compiled import compiled
from tests.trips_use_case import write_folder

KINDS = {"city": "VARCHAR", "carrier": "VARCHAR", "distance": "DOUBLE", "hour": "BIGINT"}
TEXTS, NUMBERS = ["city", "carrier"], ["distance", "hour"]
ROWS = 400
MOMENT = datetime(2024, 3, 1, tzinfo=UTC)


def sample() -> pd.DataFrame:
    """Rows in which every column lacks values."""
    draw = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "city": draw.choice(np.array(["Albany", "Utica", None], dtype=object), ROWS),
            "carrier": draw.choice(np.array(["AA", "UA", "é", None], dtype=object), ROWS),
            "distance": draw.normal(size=ROWS),
            "hour": draw.integers(0, 24, ROWS).astype(np.float64),
        }
    )
    frame.loc[draw.choice(ROWS, 40, replace=False), "distance"] = np.nan
    frame.loc[draw.choice(ROWS, 40, replace=False), "hour"] = np.nan
    return frame


FRAME = sample()
COMPLETE = FRAME.dropna()
LABELS = (
    FRAME["hour"].fillna(0) + FRAME["distance"].fillna(0) + (FRAME["city"] == "Utica") * 5
) % 7


def ordinal(**more: Any) -> OrdinalEncoder:
    return OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, **more)


def trees(columns: Any = None, final: Any = None) -> Any:
    columns = columns or (ordinal(), TEXTS)
    numbers = ("passthrough", make_column_selector(dtype_include="number"))
    final = final or HistGradientBoostingClassifier(max_iter=20, early_stopping=False)
    return make_pipeline(make_column_transformer(columns, numbers), final)


def scaled(final: Any, **more: Any) -> Any:
    numbers = make_pipeline(SimpleImputer(**more), StandardScaler())
    texts = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(make_column_transformer((numbers, NUMBERS), (texts, TEXTS)), final)


ESTIMATORS: dict[str, tuple[Any, str]] = {
    "trees": (trees(), "binary"),
    "trees of three classes": (trees(), "multiclass"),
    "trees of numbers": (trees(final=HistGradientBoostingRegressor(max_iter=20)), "regression"),
    "trees that count": (
        trees(final=HistGradientBoostingRegressor(max_iter=20, loss="poisson")), "regression",
    ),
    "one tree": (trees(final=HistGradientBoostingClassifier(max_iter=1)), "binary"),
    "no tree": (trees(final=HistGradientBoostingClassifier(max_leaf_nodes=2, min_samples_leaf=399)),
                "binary"),
    "encoded missing": (trees((ordinal(encoded_missing_value=-2), TEXTS)), "binary"),
    "rare categories": (trees((ordinal(min_frequency=110), TEXTS)), "binary"),
    "one of each": (
        trees((OneHotEncoder(handle_unknown="ignore", sparse_output=False), TEXTS)), "binary",
    ),
    "scaled": (scaled(LogisticRegression()), "multiclass"),
    "a constant for what is missing": (
        scaled(LinearRegression(), strategy="constant", fill_value=-1.0), "regression",
    ),
    "a forest": (scaled(RandomForestClassifier(10, random_state=0)), "binary"),
}  # fmt: skip


def version(estimator: Any, task: str, columns: dict[str, str] = KINDS) -> ModelVersion:
    """A fitted version with its reference sample."""
    labels: Any = LABELS
    if task != "regression":
        labels = (LABELS > 3).astype(int) if task == "binary" else LABELS.astype(int) % 3
    frame = FRAME[list(columns)]
    # Threads that wait for each other take seconds on busy cores.
    with threadpool_limits(limits=1):
        estimator.fit(frame, labels)
    classes = tuple(str(each) for each in estimator.classes_) if task != "regression" else ()
    return ModelVersion(
        "trips", 1, "run", MOMENT, 1, estimator, "", {}, frame, classes, columns, MOMENT, MOMENT
    )


@pytest.fixture(scope="module")
def models() -> dict[str, ModelVersion]:
    made = {name: version(*each) for name, each in ESTIMATORS.items()}
    with threadpool_limits(limits=1):
        return {name: replace(each, few_rows=compiled(each)) for name, each in made.items()}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("cases")
    tasks = ("binary", "multiclass", "regression")
    return {task: write_folder(root / task, task) for task in tasks}


VALUES: dict[str, list[Any]] = {
    "city": ["Albany", "Utica", None, "", "Ütica", "unheard of"],
    "carrier": ["AA", "UA", "é", None, "unheard of"],
    "distance": [np.nan, 0.0, -0.0, 5e-324, -1.5, 1e9, *FRAME["distance"].dropna()],
    "hour": [np.nan, -1.0, 25.0, *range(24)],
}


def rows_drawn(seed: int, count: int) -> dict[str, Any]:
    """Rows as a service has them, of values that were seen and of others."""
    draw = np.random.default_rng(seed)
    return by_column(
        [{name: v[draw.integers(len(v))] for name, v in VALUES.items()} for _ in range(count)]
    )


def by_column(rows: list[dict[str, Any]]) -> dict[str, Any]:
    kinds = {name: np.float64 if name in NUMBERS else object for name in KINDS}
    return {name: np.array([row[name] for row in rows], kinds[name]) for name in KINDS}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_each_of_them_is_compiled(models: dict[str, ModelVersion], name: str) -> None:
    found = models[name].few_rows
    assert found is not None
    assert found.problem == ""
    assert found.most_rows == (1 if name in {"scaled", "a forest"} or "constant" in name else 64)


@given(name=st.sampled_from(list(ESTIMATORS)), seed=st.integers(0), count=st.integers(1, 64))
def test_the_bits_are_those_of_the_estimator(
    models: dict[str, ModelVersion], name: str, seed: int, count: int
) -> None:
    model = models[name]
    assert model.few_rows is not None
    columns = rows_drawn(seed, min(count, model.few_rows.most_rows))
    ask = model.estimator.predict_proba if model.classes else model.estimator.predict
    assert model.few_rows(columns).tobytes() == np.asarray(ask(pd.DataFrame(columns))).tobytes()


@given(st.sampled_from(list(ESTIMATORS)), st.integers(0), st.integers(1, 66))
def test_predictions_are_those_of_the_one_predict_path(
    models: dict[str, ModelVersion], cases: dict[str, Any], name: str, seed: int, count: int
) -> None:
    model, case, columns = models[name], cases[ESTIMATORS[name][1]], rows_drawn(seed, count)
    found = predict_columns(case, model, columns)
    assert list(found) == list(case.prediction_columns)
    assert pd.DataFrame(found).equals(predict(case, model, pd.DataFrame(columns)))


class Unlike(HistGradientBoostingClassifier):
    """Says something else than its trees do."""

    def predict_proba(self, rows: Any) -> Any:
        return super().predict_proba(rows)[:, ::-1]


class Moody(LogisticRegression):
    """Another prediction with each call."""

    calls = 0

    def predict_proba(self, rows: Any) -> Any:
        Moody.calls += 1
        return super().predict_proba(rows) + Moody.calls * 1e-9


NOT_COMPILED: dict[str, tuple[Any, str]] = {
    "code of a use case's own": (
        make_pipeline(FunctionTransformer(lambda f: f[NUMBERS].fillna(0)), LogisticRegression()),
        "texts are given to FunctionTransformer",
    ),
    "a subclass with a method of its own": (
        make_pipeline(make_column_transformer(("passthrough", NUMBERS)), Unlike(max_iter=5)), "",
    ),
    "an estimator that changes": (scaled(Moody()), "some of 1 rows get other numbers"),
    "a sparse matrix": (
        make_pipeline(
            make_column_transformer((OneHotEncoder(handle_unknown="ignore"), TEXTS)),
            LogisticRegression(),
        ),
        "a sparse matrix",
    ),
    "categories of the trees' own": (
        trees(final=HistGradientBoostingClassifier(categorical_features=[0, 1], max_iter=5)),
        "categories of their own",
    ),
    "weights": (
        make_pipeline(
            make_column_transformer((ordinal(), TEXTS), remainder="passthrough").set_params(
                transformer_weights={"ordinalencoder": 2.0}
            ),
            HistGradientBoostingClassifier(max_iter=5),
        ),
        "weights",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_COMPILED)
def test_others_are_left_to_their_own_code(cases: dict[str, Any], name: str) -> None:
    estimator, problem = NOT_COMPILED[name]
    model = version(estimator, "binary")
    found = compiled(model)
    if problem:
        assert problem in found.problem
        assert found.most_rows == 0
    columns = by_column(COMPLETE.head(3).to_dict("records"))
    model = replace(model, few_rows=found)
    if name != "an estimator that changes":
        expected = predict(cases["binary"], model, pd.DataFrame(columns))
        assert pd.DataFrame(predict_columns(cases["binary"], model, columns)).equals(expected)


def test_a_tree_that_differs_in_one_bit_is_not_taken() -> None:
    model = version(trees(), "binary")
    final = model.estimator[-1]
    answers = final.predict_proba
    final.predict_proba = lambda rows: np.nextafter(answers(rows), 1)
    assert "get other numbers" in compiled(model).problem


def test_what_an_estimator_refuses_is_refused_in_its_words(cases: dict[str, Any]) -> None:
    """A row with a text that its encoder does not know, and one without a value."""
    strict = make_pipeline(
        make_column_transformer((OrdinalEncoder(), TEXTS), ("passthrough", NUMBERS)),
        HistGradientBoostingClassifier(max_iter=5),
    )
    model = version(strict, "binary")
    model = replace(model, few_rows=compiled(model))
    assert model.few_rows is not None
    assert model.few_rows.problem == ""
    row = {"city": "Albany", "carrier": "AA", "distance": 1.0, "hour": 2.0}
    predict_columns(cases["binary"], model, by_column([row]))
    with pytest.raises(ModelRefused, match="unknown categories"):
        predict_columns(cases["binary"], model, by_column([{**row, "city": "Ütica"}]))
    lacking = by_column([row])
    del lacking["hour"]
    with pytest.raises(FeatureError, match="'hour', which these rows lack"):
        predict_columns(cases["binary"], model, lacking)
    lacking["hour"] = np.array(["2"], dtype=object)
    with pytest.raises(FeatureError, match=r"column 'hour' .* is object"):
        predict_columns(cases["binary"], model, lacking)


def test_more_rows_go_to_the_estimator(cases: dict[str, Any]) -> None:
    model = version(trees(), "binary")
    model = replace(model, few_rows=compiled(model))
    calls = []
    ask = model.estimator.predict_proba

    def counted(rows: pd.DataFrame) -> Any:
        calls.append(len(rows))
        return ask(rows)

    model.estimator.predict_proba = counted
    for rows in (1, 64, 65):
        predict_columns(cases["binary"], model, by_column(FRAME.head(rows).to_dict("records")))
    assert calls == [65]
