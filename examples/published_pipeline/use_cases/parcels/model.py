from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler


def build():
    """An unfitted estimator."""
    columns = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["depot"]),
        (StandardScaler(), ["distance_km", "depot__mean_distance_km"]),
    )
    return make_pipeline(columns, LogisticRegression())
