"""The model: gradient boosted trees, which need no scaling and take nulls as they are."""

from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OrdinalEncoder

# Other strings, such as the 105 destinations, are left to the views: what happened to them
# lately says more than their names, which the trees would only learn by heart.
CATEGORIES = ["carrier", "origin"]


def build() -> Pipeline:
    """Return the untrained pipeline; a category it was not trained on counts as missing."""
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=float("nan"))
    # Delays come in bad days, so that the rows of a window say far less than their number
    # suggests: large leaves, small trees and random columns keep the days from being learned.
    classifier = HistGradientBoostingClassifier(
        learning_rate=0.075,
        max_iter=100,
        max_bins=63,
        max_leaf_nodes=15,
        min_samples_leaf=300,
        max_features=0.2,
        l2_regularization=10.0,
        early_stopping=False,
        random_state=0,
    )
    columns = make_column_transformer(
        (encoder, CATEGORIES),
        ("passthrough", make_column_selector(dtype_include="number")),
        remainder="drop",
    )
    return make_pipeline(columns, classifier)
